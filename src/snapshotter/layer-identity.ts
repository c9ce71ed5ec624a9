/**
 * Checks that a layer has the chain ID that its client asks for.
 *
 * containerd computes that chain ID from the image's config; annotations of the image's manifest name the blob to
 * fetch. Both come from the image, and containerd compares them only when it unpacks. A layer that is served lazily is
 * never unpacked, so they are compared here. The blob of an overlaybd layer is its
 * own uncompressed form, and so its digest is the diff ID (OCI image config, "Layer DiffID").
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { chainIdOn } from '../oci/chain-id.js';
import { DIFF_ID_LABEL, PARENT_CHAIN_LABEL, REF_LABEL } from './labels.js';
import { isUnproved, type Labels, remoteBlob, type Snapshot } from './snapshot.js';

/** The key under which containerd's clients unpack a layer ends in its chain ID. */
const UNPACKING_KEY = /(?:^|\/)extract-\S+ (sha256:[0-9a-f]{64})$/;

export interface ClaimedLayer {
  /** The chain ID that the client asks for. */
  readonly ref: string;
  /** Digest of the blob. */
  readonly digest: string;
  readonly labels: Labels;
  /** The snapshot of its parent. */
  readonly below: Snapshot | undefined;
}

/** Why the layer is not proved to have this chain ID; undefined if it is. */
export function identityProblem({ ref, digest, labels, below }: ClaimedLayer): string | undefined {
  const on = below === undefined ? '' : below.chainId;
  if (on === undefined) return `the layer below it, "${below?.name}", has no proved chain ID`;
  const chainId = chainIdOn(on, digest);
  if (chainId !== ref) return `the chain ID of blob ${digest} on its parent is ${chainId}`;
  const diffId = labels[DIFF_ID_LABEL] ?? digest;
  if (diffId !== digest) return `containerd says that its diff ID is ${diffId}`;
  const parent = labels[PARENT_CHAIN_LABEL] ?? on;
  return parent === on ? undefined : `containerd says that the layer below it is ${parent}`;
}

/** Whether containerd prepares this layer without its parent and expects Commit to set it, as it takes us for able to. */
export function expectsRebase(ref: string, parent: string, labels: Labels): boolean {
  const diffId = labels[DIFF_ID_LABEL];
  const parentChainId = labels[PARENT_CHAIN_LABEL];
  if (parent !== '' || !diffId || !parentChainId) return false;
  return chainIdOn(parentChainId, diffId) === ref;
}

export function rebaseRefused(ref: string): ObdError {
  return new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot prepare layer ${ref} without the layer below it: obd-snapshotter cannot rebase, and containerd was told that it can; remove "rebase" from "capabilities" of its [proxy_plugins] table in containerd's configuration, restart containerd, remove the image and pull it again`,
  );
}

/** The error for a client that uses a layer that an earlier version recorded without proof. */
export function refusal({ name, layer }: Snapshot): ObdError {
  const url = remoteBlob(layer)?.repoBlobUrl.replace(/\/blobs$/, '');
  const from = url === undefined ? '' : `, of ${url},`;
  return new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot serve layer "${name}": an earlier version recorded it${from} without proof that it has this chain ID; remove all images with it and pull them again`,
  );
}

/** @throws {ObdError} `FailedPrecondition` if one of the snapshots has no proof of its chain ID. */
export function checkServable(chain: readonly Snapshot[]): void {
  const unproved = chain.find(isUnproved);
  if (unproved !== undefined) throw refusal(unproved);
}

/** The chain ID of the layer that a client is about to unpack, if the key is one for that. */
export function chainIdIn(key: string): string | undefined {
  return UNPACKING_KEY.exec(key)?.[1];
}

/**
 * The chain ID that containerd announces for unpacking, if the parent's own is proved. A forged one fails containerd's
 * check of the diff ID, and then there is no Commit.
 */
export function chainIdToUnpack(
  key: string,
  labels: Labels,
  below: Snapshot | undefined,
): string | undefined {
  const named = chainIdIn(key);
  const { [REF_LABEL]: ref = named } = labels;
  const isOnProved = below === undefined || below.chainId !== undefined;
  return ref === named && isOnProved ? named : undefined;
}

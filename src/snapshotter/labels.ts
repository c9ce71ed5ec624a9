/**
 * The labels that clients send with Prepare and Commit, and the one that we add.
 *
 * containerd passes on, as a label, every annotation of a layer that begins with `containerd.io/snapshot/`. So the image
 * may have set any such label, and a label that could lead elsewhere than the image's own blobs is ignored.
 * The labels of an overlaybd layer are checked here, once.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { DEFAULT_FILE_SYSTEM, isMountable } from '../image/image-mount.js';
import { isDigest } from '../oci/digest.js';
import {
  ACCELERATION_LAYER_ANNOTATION,
  BLOB_DIGEST_ANNOTATION,
  BLOB_FS_TYPE_ANNOTATION,
  BLOB_SIZE_ANNOTATION,
  NATIVE_VERSION,
  VERSION_ANNOTATION,
} from '../oci/overlaybd-annotations.js';
import type { Labels } from './snapshot.js';

/** The chain ID of the layer that the client is about to unpack. */
export const REF_LABEL = 'containerd.io/snapshot.ref';

/** Sent by containerd 2.4 and later: the layer's diff ID, and the chain ID of the layer below it. */
export const DIFF_ID_LABEL = 'containerd.io/snapshot/diff-id';
export const PARENT_CHAIN_LABEL = 'containerd.io/snapshot/parent-chain-id';

/** A reference with the port that content labels lack, set by `obdctl rpull` and CRI; ContentManifests confirms it. */
export const IMAGE_REF_LABELS = [
  'containerd.io/snapshot/cri.image-ref',
  'containerd.io/snapshot/image-ref',
];

/** The digests of this layer and the layers above it, comma-separated: from CRI and from the transfer service. */
const IMAGE_LAYERS_LABEL = 'containerd.io/snapshot/cri.image-layers';
/** All are asked for at once. */
const FOLLOWING_MAX = 16;

/** The layers needed next, as the client or the image says. Only the registry of this layer is asked for them. */
export function followingLayers(labels: Labels): string[] {
  const digests = (labels[IMAGE_LAYERS_LABEL] ?? '').split(',', FOLLOWING_MAX);
  return digests.filter(isDigest);
}

/**
 * How a snapshot is served:
 *
 *   lazy       from blocks, fetched from a registry when they are read
 *   local      from blocks that are all on this machine
 *   overlayfs  from files that are all on this machine
 *   refused    not at all: an earlier version recorded the layer without proof of its chain ID
 */
export const SERVED_LABEL = 'containerd.io/snapshot/obd-ts.served';
export type Served = 'lazy' | 'local' | 'overlayfs' | 'refused';

/** `host:port` of the registry that a lazy layer is fetched from; set only on lazy layers. */
export const REGISTRY_LABEL = 'containerd.io/snapshot/obd-ts.registry';

/** Why a layer is refused; set only on refused layers. */
export const REFUSED_LABEL = 'containerd.io/snapshot/obd-ts.refused';

/** An overlaybd layer's blob, as its annotations describe it. */
export interface OverlaybdBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly fileSystem: string;
  /** The blob holds an access trace and no blocks. */
  readonly isTrace: boolean;
}

/**
 * The blob that the labels describe; undefined if they are not of an overlaybd layer.
 *
 * @throws {ObdError} `InvalidArgument` for annotations that contradict their definition, `Unsupported` for a format or a
 *   file system that this build cannot serve.
 */
export function overlaybdBlobOf(labels: Labels): OverlaybdBlob | undefined {
  const digest = labels[BLOB_DIGEST_ANNOTATION];
  if (digest === undefined) return undefined;
  if (!isDigest(digest)) throw refused(BLOB_DIGEST_ANNOTATION, digest, 'it is no sha256 digest');
  const version = labels[VERSION_ANNOTATION] ?? NATIVE_VERSION;
  if (version !== NATIVE_VERSION) {
    const problem = `only version ${NATIVE_VERSION} can be served; convert the image with obdconv`;
    throw refused(VERSION_ANNOTATION, version, problem, ErrorCodes.Unsupported);
  }
  const size = labels[BLOB_SIZE_ANNOTATION] ?? '';
  const sizeBytes = /^[1-9][0-9]*$/.test(size) ? Number(size) : 0;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes === 0) {
    throw refused(BLOB_SIZE_ANNOTATION, size, 'it is no size in bytes');
  }
  const [fileSystem = ''] = (labels[BLOB_FS_TYPE_ANNOTATION] ?? DEFAULT_FILE_SYSTEM).split(';');
  if (!isMountable(fileSystem)) {
    const problem = 'a file system of this type is not supported';
    throw refused(BLOB_FS_TYPE_ANNOTATION, fileSystem, problem, ErrorCodes.Unsupported);
  }
  return {
    digest,
    sizeBytes,
    fileSystem,
    isTrace: labels[ACCELERATION_LAYER_ANNOTATION] === 'yes',
  };
}

function refused(
  label: string,
  value: string,
  problem: string,
  code: ObdError['code'] = ErrorCodes.InvalidArgument,
): ObdError {
  const shown = JSON.stringify(value.slice(0, 100));
  return new ObdError(code, `Cannot use the overlaybd layer with ${label}=${shown}: ${problem}`);
}

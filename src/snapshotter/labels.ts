/**
 * The labels that clients send with Prepare and Commit, and the one that we add.
 *
 * containerd passes on, as a label, every annotation of a layer that begins with `containerd.io/snapshot/`. So the image
 * may have set any such label, and a label that could lead elsewhere than the image's own blobs is ignored.
 * The labels of a layer that can be served lazily are checked by its kind (src/layers/layer-kind.ts).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { isMountable } from '../image/image-mount.js';
import {
  type DescribedLayer,
  describeLayer,
  type LayerDescription,
  type LayerKind,
} from '../layers/layer-kind.js';
import { commandNamed } from '../load-order/command-line.js';
import type { ImageLayer, Labels } from './snapshot.js';

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

/**
 * Whether the rest of the image is fetched in the background: `true` or `false` on the snapshot of its topmost layer. Any
 * other value leaves it to obd-blockd's configuration. It counts when the image's device is attached.
 */
const FILL_LABEL = 'containerd.io/snapshot/obd-ts.fill';

/**
 * By which the load order of a start is chosen, where an image has several (docs/formats/load-order.md): its name, and the command line
 * of the container, as words or as digest. On the snapshot of a layer, at the pull, or of a container. The client, or the image, may
 * set them.
 */
const LOAD_ORDER_LABEL = 'containerd.io/snapshot/obd-ts.load-order';
const COMMAND_LABEL = 'containerd.io/snapshot/obd-ts.command';

/** The command line and the name in labels; undefined if there are none. */
export function startLabels(
  labels: Labels,
): { readonly command: string; readonly name: string } | undefined {
  const { [LOAD_ORDER_LABEL]: name = '', [COMMAND_LABEL]: command = '' } = labels;
  return name === '' && command === '' ? undefined : { command: commandNamed(command), name };
}

/** Undefined if the labels do not say. */
export function fillWanted(labels: Labels): boolean | undefined {
  const value = labels[FILL_LABEL];
  return value === 'true' || value === 'false' ? value === 'true' : undefined;
}

/**
 * The layer that a description is of; undefined for a plain layer.
 *
 * @param kinds - The kinds of layer to look for.
 * @throws {ObdError} `Unsupported` for a kind that this build cannot serve, even from a download; `InvalidArgument` for
 *   annotations that are no use: the blob may be sound, and only a download shows what it holds.
 */
export function servableLayer(
  kinds: readonly LayerKind[],
  description: LayerDescription,
): DescribedLayer | undefined {
  const described = describeLayer(kinds, description);
  if (described === undefined || isMountable(described.fileSystem)) return described;
  const { lower, fileSystem } = described;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use the overlaybd layer ${lower.digest}: its file system is ${JSON.stringify(fileSystem.slice(0, 100))}, which is not supported`,
  );
}

export function imageLayerOf({ lower, fileSystem }: DescribedLayer): ImageLayer {
  return { lower, fileSystem };
}

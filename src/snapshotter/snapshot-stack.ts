/**
 * The ancestors of a snapshot: layers of files, over at most one image.
 *
 *   files      0 or more layers of files, top first
 *   image      the topmost layer made of blocks; its device shows it with all that is below it
 *
 * A layer of blocks cannot stand on one of files, as a device has no directories below it.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { registryAddress } from '../registry/registry-hosts.js';
import type { Served } from './labels.js';
import { isBlockLayer, type Layer, remoteBlob, type Snapshot } from './snapshot.js';

export interface Image {
  /** The topmost layer of blocks: its snapshot gives the device its id and a place. */
  readonly top: Snapshot;
  /** That and all below, bottom first. */
  readonly layers: readonly Snapshot[];
}

export interface SnapshotStack {
  readonly files: readonly Snapshot[];
  readonly image: Image | undefined;
}

/** @param ancestors - Nearest first. @throws {ObdError} `FailedPrecondition` for blocks on files. */
export function stackOf(ancestors: readonly Snapshot[]): SnapshotStack {
  const firstBlock = ancestors.findIndex(({ layer }) => isBlockLayer(layer));
  if (firstBlock === -1) return { files: ancestors, image: undefined };
  const blocks = ancestors.slice(firstBlock);
  const misplaced = blocks.find(({ layer }) => !isBlockLayer(layer));
  const top = blocks[0];
  if (misplaced !== undefined || top === undefined) throw blocksOnFiles(top?.name, misplaced?.name);
  return { files: ancestors.slice(0, firstBlock), image: { top, layers: blocks.toReversed() } };
}

/**
 * Lazy layers are read from the repository of the topmost one, whose image has them all. Below a downloaded layer that may
 * be the wrong registry, so there all lazy layers must be from one registry.
 *
 * @throws {ObdError} `FailedPrecondition`.
 */
export function checkOneRegistry({ image }: SnapshotStack): void {
  const layers = (image?.layers ?? []).filter(({ layer }) => layer.type !== 'trace');
  const top = layers.at(-1);
  if (top === undefined || remoteBlob(top.layer) !== undefined) return;
  const lazy = layers.flatMap(({ layer }) => remoteBlob(layer)?.repoBlobUrl ?? []);
  const registries = [...new Set(lazy.map(registryAddress))];
  if (registries.length < 2) return;
  throw new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot use layer "${top.name}": it was downloaded, and the layers below it are read from several registries, ${registries.join(', ')}; remove all images with these layers, and pull the one from its registry again`,
  );
}

export function blocksOnFiles(upper = '', lower = ''): ObdError {
  return new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot put the overlaybd layer "${upper}" on "${lower}", which is a plain layer: convert the whole image with obdconv, and remove the half-converted one`,
  );
}

/** How a snapshot on top of this stack is served. */
export function servedBy({ image }: SnapshotStack): Served {
  if (image === undefined) return 'overlayfs';
  return image.layers.some(({ layer }) => remoteBlob(layer) !== undefined) ? 'lazy' : 'local';
}

/** How a single layer is served. */
export function servedAs(layer: Layer): Served {
  switch (layer.type) {
    case 'blocks':
      return remoteBlob(layer) === undefined ? 'local' : 'lazy';
    case 'trace':
      return 'lazy';
    case 'files':
    case 'download':
      return 'overlayfs';
  }
}

/** Layer files on this machine, opened as the disk that they add up to. */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { NULL_UUID, normalizeUuid } from '../lsmt/layer-uuid.js';
import { UnsealedLayer } from '../lsmt/unsealed-layer.js';
import { openLayerFiles } from './layer-file.js';
import type { LayerDependencies } from './open-layer.js';

export interface StackOptions {
  /** TurboOCI: one for each layer, or none. */
  readonly targets: readonly string[];
  /** Refuses layers that do not stand on their parents. */
  readonly checksParents: boolean;
}

/**
 * @param names - As openLayerFile() takes them, bottom first.
 * @throws {ObdError} `FailedPrecondition` for a wrong parent, as openLayerFile(); nothing stays open then.
 */
export async function openStack(
  names: readonly string[],
  { targets, checksParents }: StackOptions,
  dependencies: LayerDependencies,
): Promise<LayerStack> {
  const layers = await openLayerFiles(names, targets, dependencies);
  try {
    if (checksParents) checkParents(names, layers);
    return new LayerStack(layers);
  } catch (error) {
    for (const layer of layers) layer.close();
    throw error;
  }
}

/**
 * A layer that names a parent must stand on it. The writers of some layers name none, and a writable layer gets its final
 * uuid only when it is committed.
 */
function checkParents(names: readonly string[], layers: readonly Layer[]): void {
  for (const [i, { parentUuid }] of layers.entries()) {
    const parent = normalizeUuid(parentUuid);
    if (parent === undefined || parent === NULL_UUID) continue;
    if (layers[i - 1] instanceof UnsealedLayer) continue;
    const below = layers[i - 1]?.uuid;
    if (parent === normalizeUuid(below ?? '')) continue;
    const place =
      below === undefined
        ? 'it is given as the bottom layer'
        : `below it is "${names[i - 1]}" with uuid ${below}`;
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot stack "${names[i]}": its parent has uuid ${parentUuid}, and ${place}; give all layers, bottom first, or --force to stack them all the same`,
      { path: names[i]! },
    );
  }
}

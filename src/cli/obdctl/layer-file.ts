/**
 * A layer named on the command line, opened: `FILE` for one that is finished (in a tar or not, a ZFile or not), or
 * `DATA,INDEX` for a writable one as its writer left it. A file whose name contains a comma is taken as it is.
 */
import { existsSync } from 'node:fs';
import { ErrorCodes, ObdError } from '../../errors.js';
import { LocalFile } from '../../io/local-file.js';
import type { Layer } from '../../lsmt/layer.js';
import { openLayer, openTurboLayer } from '../../lsmt/open-layer.js';
import { UnsealedLayer } from '../../lsmt/unsealed-layer.js';
import type { DecodedBlocks } from '../../zfile/decoded-blocks.js';

/** For the decoded blocks that one command keeps; more would help nothing that reads once. */
export const DECODED_BYTES = 4 << 20;

/** @throws {ObdError} `InvalidArgument` unless there is a target for each layer, or none at all. */
export function checkTargets(layers: readonly string[], targets: readonly string[]): void {
  if (targets.length === 0 || targets.length === layers.length) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot match ${targets.length} targets to ${layers.length} layers: give --target once per layer`,
  );
}

/**
 * @param target - The uncompressed tar of the original layer, if this is a TurboOCI layer.
 * @throws {ObdError} `NotFound`, `Corrupt`, `Unsupported`, `Io`; nothing stays open then.
 */
export async function openLayerFile(
  name: string,
  decoded: DecodedBlocks,
  target?: string,
): Promise<Layer> {
  const comma = name.lastIndexOf(',');
  const writable = comma > 0 && !existsSync(name);
  const opened: LocalFile[] = [];
  const open = (path: string) => {
    const file = LocalFile.open(path);
    opened.push(file);
    return file;
  };
  try {
    if (writable) {
      const index = open(name.slice(comma + 1));
      const layer = await UnsealedLayer.open(open(name.slice(0, comma)), index);
      index.close();
      return layer;
    }
    if (target !== undefined) return await openTurboLayer(open(name), open(target), decoded);
    return await openLayer(open(name), decoded);
  } catch (error) {
    for (const file of opened) file.close();
    throw error;
  }
}

/** Opens all of them, bottom first; if one fails, the others are closed. */
export async function openLayerFiles(
  names: readonly string[],
  targets: readonly string[],
  decoded: DecodedBlocks,
): Promise<Layer[]> {
  const layers: Layer[] = [];
  try {
    for (const [i, name] of names.entries()) {
      layers.push(await openLayerFile(name, decoded, targets[i]));
    }
    return layers;
  } catch (error) {
    for (const layer of layers) layer.close();
    throw error;
  }
}

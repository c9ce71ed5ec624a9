/**
 * Opens a layer named on the command line: `FILE` for a finished one (in a tar or not, a ZFile or not), or `DATA,INDEX`
 * for a writable one as its writer left it. A file whose name contains a comma is taken as it is.
 */
import { existsSync } from 'node:fs';
import { LocalFile } from '../io/local-file.js';
import type { Layer } from '../lsmt/layer.js';
import { UnsealedLayer } from '../lsmt/unsealed-layer.js';
import { type LayerDependencies, openLayer } from './open-layer.js';

/**
 * @param target - The uncompressed tar of the original layer, if this is a TurboOCI layer.
 * @throws {ObdError} `NotFound`, `Corrupt`, `Unsupported`, `Io`; then all files are closed.
 */
export async function openLayerFile(
  name: string,
  dependencies: LayerDependencies,
  target: string | undefined,
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
    return await openLayer(open(name), dependencies, { targetFile: target });
  } catch (error) {
    for (const file of opened) file.close();
    throw error;
  }
}

/** Opens all layers, bottom first; if one fails, closes the others. */
export async function openLayerFiles(
  names: readonly string[],
  targets: readonly string[],
  dependencies: LayerDependencies,
): Promise<Layer[]> {
  const layers: Layer[] = [];
  try {
    for (const [i, name] of names.entries()) {
      layers.push(await openLayerFile(name, dependencies, targets[i]));
    }
    return layers;
  } catch (error) {
    for (const layer of layers) layer.close();
    throw error;
  }
}

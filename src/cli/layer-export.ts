/** `obdctl layer export`: the whole virtual disk of a stack of layer files, as a sparse raw file. */
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { byteText } from './byte-text.js';
import { interruption } from './interruption.js';
import { checkTargets, DECODED_BYTES, openLayerFiles } from './layer-file.js';
import { ProgressLine } from './progress-line.js';
import { exportRaw } from './raw-export.js';

/**
 * @param layers - Bottom first.
 * @param targets - One for each layer, or none.
 */
export async function exportLayers(
  out: string,
  layers: readonly string[],
  targets: readonly string[],
): Promise<void> {
  checkTargets(layers, targets);
  const signal = interruption();
  const disk = stackOf(await openLayerFiles(layers, targets, new DecodedBlocks(DECODED_BYTES)));
  try {
    const progress = new ProgressLine(`exporting ${out}`, disk.sizeBytes);
    const written = await exportRaw(disk, out, signal, (done) => progress.update(done));
    progress.done(`${byteText(disk.sizeBytes)}, of which ${byteText(written)} data`);
  } finally {
    disk.close();
  }
}

/** What could not be stacked is closed. */
function stackOf(layers: readonly Layer[]): LayerStack {
  try {
    return new LayerStack(layers);
  } catch (error) {
    for (const layer of layers) layer.close();
    throw error;
  }
}

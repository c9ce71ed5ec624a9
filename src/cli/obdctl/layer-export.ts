/** `obdctl layer export`: the whole virtual disk of a stack of layer files, as a sparse raw file. */
import { lstat } from 'node:fs/promises';
import { byteText } from '../../byte-text.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import { LAYER_FORMATS } from '../../layers/layer-formats.js';
import { exportRaw } from '../../layers/raw-export.js';
import { openStack } from '../../layers/stacked-files.js';
import { DecodedBlocks } from '../../zfile/decoded-blocks.js';
import { interruption } from '../interruption.js';
import { ProgressLine } from '../progress-line.js';
import { checkTargets, DECODED_BYTES } from './layer-targets.js';

interface ExportOptions {
  /** One for each layer, or none. */
  readonly targets: readonly string[];
  /** Replaces an existing file, and stacks the layers without checking parents. */
  readonly force: boolean;
}

/**
 * @param layers - Bottom first.
 * @throws {ObdError} `AlreadyExists` if the file exists, `FailedPrecondition` if a layer's parent is not the layer
 *   below it, errors of reading layers and of writing the file.
 */
export async function exportLayers(
  out: string,
  layers: readonly string[],
  { targets, force }: ExportOptions,
): Promise<void> {
  checkTargets(layers, targets);
  if (!force) await checkAbsent(out);
  const signal = interruption();
  const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(DECODED_BYTES) };
  const disk = await openStack(layers, { targets, checksParents: !force }, dependencies);
  try {
    const progress = new ProgressLine(`exporting ${out}`, disk.sizeBytes);
    const written = await exportRaw(disk, out, signal, (done) => progress.update(done));
    progress.done(`${byteText(disk.sizeBytes)}, of which ${byteText(written)} data`);
  } finally {
    disk.close();
  }
}

async function checkAbsent(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  throw new ObdError(
    ErrorCodes.AlreadyExists,
    `Cannot export to "${path}": it exists; name another file, or replace it with --force`,
    { path },
  );
}

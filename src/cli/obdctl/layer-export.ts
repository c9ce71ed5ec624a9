/** `obdctl layer export`: the whole virtual disk of a stack of layer files, as a sparse raw file. */
import { lstat } from 'node:fs/promises';
import { byteText } from '../../byte-text.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import type { Layer } from '../../lsmt/layer.js';
import { LayerStack } from '../../lsmt/layer-stack.js';
import { NULL_UUID, normalizeUuid } from '../../lsmt/layer-uuid.js';
import { UnsealedLayer } from '../../lsmt/unsealed-layer.js';
import { DecodedBlocks } from '../../zfile/decoded-blocks.js';
import { interruption } from '../interruption.js';
import { ProgressLine } from '../progress-line.js';
import { checkTargets, DECODED_BYTES, openLayerFiles } from './layer-file.js';
import { exportRaw } from './raw-export.js';

interface ExportOptions {
  /** One for each layer, or none. */
  readonly targets: readonly string[];
  /** Replaces an existing file, and stacks the layers without checking parents. */
  readonly force: boolean;
}

/**
 * @param layers - Bottom first.
 * @throws {ObdError} `AlreadyExists` if the file exists, `FailedPrecondition` if the layers do not stand on each other,
 *   errors of reading layers and of writing the file.
 */
export async function exportLayers(
  out: string,
  layers: readonly string[],
  { targets, force }: ExportOptions,
): Promise<void> {
  checkTargets(layers, targets);
  if (!force) await checkAbsent(out);
  const signal = interruption();
  const opened = await openLayerFiles(layers, targets, new DecodedBlocks(DECODED_BYTES));
  const disk = stackOf(opened, () => {
    if (!force) checkParents(layers, opened);
  });
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

/** Closes the layers if they cannot be stacked. */
function stackOf(layers: readonly Layer[], check: () => void): LayerStack {
  try {
    check();
    return new LayerStack(layers);
  } catch (error) {
    for (const layer of layers) layer.close();
    throw error;
  }
}

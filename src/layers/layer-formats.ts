/** The table of layer formats: every kind that this build knows, and how it opens each. docs/hacking.md: add a row. */
import { ErrorCodes, ObdError } from '../errors.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { LayerFormat, LayerOpening } from './layer-format.js';
import type { LowerLayer } from './lower-layer.js';
import { OVERLAYBD, OVERLAYBD_TRACE, OVERLAYBD_TURBO } from './overlaybd-kinds.js';
import { beginOverlaybd } from './overlaybd-opening.js';

/** In the order of LAYER_KINDS. */
export const LAYER_FORMATS: readonly LayerFormat[] = [
  { ...OVERLAYBD_TRACE, begin: undefined },
  { ...OVERLAYBD_TURBO, begin: beginTurbo },
  { ...OVERLAYBD, begin: (blob, _lower, decoded) => beginOverlaybd(blob, undefined, decoded) },
];

async function beginTurbo(
  blob: RandomAccessFile,
  { targetFile, gzipIndex }: LowerLayer,
  decoded: DecodedBlocks,
): Promise<LayerOpening> {
  if (gzipIndex || !targetFile) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      'its contents are in a remote or compressed tar (TurboOCI); only "targetFile", a local and uncompressed one, is supported',
    );
  }
  const target = LocalFile.open(targetFile);
  try {
    return await beginOverlaybd(blob, target, decoded);
  } catch (error) {
    target.close();
    throw error;
  }
}

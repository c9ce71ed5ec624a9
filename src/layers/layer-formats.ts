/** The table of layer formats: every kind that this build knows, and how it opens each. docs/hacking.md: add a row. */
import { ErrorCodes, ObdError } from '../errors.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { LayerBasis, LayerFormat, LayerOpening } from './layer-format.js';
import { OVERLAYBD, OVERLAYBD_TRACE, OVERLAYBD_TURBO } from './overlaybd-kinds.js';
import { OverlaybdOpening } from './overlaybd-opening.js';

/** In the order of LAYER_KINDS. */
export const LAYER_FORMATS: readonly LayerFormat[] = [
  { ...OVERLAYBD_TRACE, begin: undefined },
  { ...OVERLAYBD_TURBO, begin: beginTurbo },
  { ...OVERLAYBD, begin: (blob, about) => new OverlaybdOpening(blob, about, undefined) },
];

function beginTurbo(blob: RandomAccessFile, about: LayerBasis): LayerOpening {
  const { targetFile, gzipIndex } = about.lower;
  if (gzipIndex || !targetFile) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      'its contents are in a remote or compressed tar (TurboOCI); only "targetFile", a local and uncompressed one, is supported',
    );
  }
  const target = LocalFile.open(targetFile);
  try {
    return new OverlaybdOpening(blob, about, target);
  } catch (error) {
    target.close();
    throw error;
  }
}

/**
 * Converts the image of one manifest: its layers one by one, then its config, then the manifest, which is
 * put without a tag. Blobs that the destination has already are not sent again.
 *
 * A layer is sent while the next one is converted; no more than one waits. On an error nothing refers to
 * what was sent, and the work directory is gone.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { LAYERS_MAX } from '../lsmt/layer-stack.js';
import type { ImageDestination, ImageSource } from '../registry/image-store.js';
import type { Descriptor, ImageManifest } from '../registry/manifest.js';
import { decompress } from '../tar/decompress.js';
import { chainIds, withDiffIds } from './image-identity.js';
import { type ConvertedLayer, LayerConverter, type LayerFormat } from './layer-converter.js';
import type { ConversionProgress } from './progress.js';
import { VerifiedStream } from './verified-stream.js';
import { WorkDirectory } from './work-directory.js';

export interface ConvertOptions {
  readonly format: LayerFormat;
  /** A directory of its own is made in it. */
  readonly workDirectory: string;
  readonly progress: ConversionProgress;
  readonly signal: AbortSignal;
}

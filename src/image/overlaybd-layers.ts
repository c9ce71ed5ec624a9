/**
 * The layers of an overlaybd image, bottom first, from whatever names the image: what obd-blockd needs to serve it.
 * Only the manifest is read.
 */

import { ErrorCodes, ObdError } from '../errors.js';
import type { ImageSource } from '../oci/image-store.js';
import { imageFor } from '../oci/index-images.js';
import type { Descriptor } from '../oci/manifest.js';
import {
  ACCELERATION_LAYER_ANNOTATION,
  BLOB_DIGEST_ANNOTATION,
  BLOB_FS_TYPE_ANNOTATION,
  NATIVE_VERSION,
  VERSION_ANNOTATION,
} from '../oci/overlaybd-annotations.js';
import { hostPlatform, type Platform } from '../oci/platform.js';

export interface OverlaybdLayers {
  /** Bottom first, at least one. */
  readonly layers: readonly Descriptor[];
  /** As the image says it; undefined if it does not. */
  readonly fileSystem: string | undefined;
}

/**
 * @param platform - Which image of an index; undefined means this host's.
 * @throws {ObdError} `FailedPrecondition` if the image was never converted, `Unsupported` if its layers need more than
 *   their blobs, `NotFound` if it is not there for the platform; what the source throws.
 */
export async function overlaybdLayers(
  source: ImageSource,
  platform: Platform | undefined,
): Promise<OverlaybdLayers> {
  const stored = await source.resolve();
  const found =
    stored.kind === 'image'
      ? stored
      : await imageFor(source, stored.index, platform ?? hostPlatform());
  const layers = found.manifest.layers.filter((layer) => !isTrace(layer));
  checkAll(source, layers);
  const fileSystem = layers.at(-1)?.annotations?.[BLOB_FS_TYPE_ANNOTATION]?.split(';', 1)[0];
  return { layers, fileSystem };
}

/** A layer of blocks that were read once, which helps prefetching and holds no data. */
function isTrace({ annotations }: Descriptor): boolean {
  return annotations?.[ACCELERATION_LAYER_ANNOTATION] === 'yes';
}

function checkAll(source: ImageSource, layers: readonly Descriptor[]): void {
  if (layers.length === 0) {
    const message = `Cannot use ${source.label}: it has no layers`;
    throw new ObdError(ErrorCodes.FailedPrecondition, message);
  }
  for (const [i, { digest, annotations }] of layers.entries()) {
    const what = `layer ${i + 1} of ${layers.length}, ${digest},`;
    if (annotations?.[BLOB_DIGEST_ANNOTATION] !== digest) {
      throw new ObdError(
        ErrorCodes.FailedPrecondition,
        `Cannot use ${source.label}: it is no overlaybd image, as ${what} is a plain one; convert it with obdconv`,
        { digest },
      );
    }
    const version = annotations[VERSION_ANNOTATION] ?? NATIVE_VERSION;
    if (version !== NATIVE_VERSION) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot use ${source.label}: ${what} has format ${JSON.stringify(version)}, and only ${NATIVE_VERSION} can be served`,
        { digest },
      );
    }
  }
}

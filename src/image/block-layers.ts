/** The layers of an image as an image config names them, bottom first. Only the manifest is read. */

import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { type DescribedLayer, describeLayer, type LayerKind } from '../layers/layer-kind.js';
import type { ImageSource } from '../oci/image-store.js';
import { imageFor } from '../oci/index-images.js';
import type { Descriptor } from '../oci/manifest.js';
import { hostPlatform, type Platform } from '../oci/platform.js';

export interface BlockLayers {
  /** Bottom first, at least one of blocks, without traces. */
  readonly layers: readonly DescribedLayer[];
  /** Whether the image has a trace, too. */
  readonly isTraced: boolean;
  /** The disk's, by the image's annotations. */
  readonly fileSystem: string;
  /** The image's manifest, of one platform. */
  readonly manifest: Descriptor;
  /** The descriptor of the image's config. */
  readonly config: Descriptor;
}

/**
 * @param kinds - The kinds of layer to look for.
 * @param platform - Which image of an index; undefined means this host's.
 * @throws {ObdError} `FailedPrecondition` if the image was never converted, `Unsupported` if its layers need more than
 *   their blobs, `NotFound` if it is not there for the platform; what the source throws.
 */
export async function blockLayers(
  source: ImageSource,
  kinds: readonly LayerKind[],
  platform: Platform | undefined,
): Promise<BlockLayers> {
  const stored = await source.resolve();
  const found =
    stored.kind === 'image'
      ? stored
      : await imageFor(source, stored.index, platform ?? hostPlatform());
  const { layers, config } = found.manifest;
  const described = layers.map((layer, i) => {
    const which = `layer ${i + 1} of ${layers.length}, ${layer.digest},`;
    return blocksOrTrace(source, kinds, layer, which);
  });
  const blocks = described.filter(({ holds }) => holds === 'blocks');
  const top = blocks.at(-1);
  if (top !== undefined) {
    return {
      layers: blocks,
      isTraced: blocks.length < described.length,
      fileSystem: top.fileSystem,
      manifest: found.descriptor,
      config,
    };
  }
  const message = `Cannot use ${source.label}: it has no layers`;
  throw new ObdError(ErrorCodes.FailedPrecondition, message);
}

function blocksOrTrace(
  source: ImageSource,
  kinds: readonly LayerKind[],
  layer: Descriptor,
  which: string,
): DescribedLayer {
  const { digest } = layer;
  let described: DescribedLayer | undefined;
  try {
    described = describeLayer(kinds, layer);
  } catch (error) {
    if (!(error instanceof ObdError)) throw error;
    const message = `Cannot use ${source.label}: ${which} is unfit: ${messageOf(error)}`;
    throw new ObdError(error.code, message, { digest }, error);
  }
  if (described !== undefined) return described;
  throw new ObdError(
    ErrorCodes.FailedPrecondition,
    `Cannot use ${source.label}: it is no overlaybd image, as ${which} is a plain one; convert it with obdconv`,
    { digest },
  );
}

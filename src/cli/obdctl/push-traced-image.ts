/** `obdctl record --trace-layer`: pushes the image with a trace layer under another tag of its repository. */
import { ErrorCodes, ObdError } from '../../errors.js';
import { checkTraceable, tracedImage } from '../../image/traced-image.js';
import type { LoadOrder } from '../../load-order/load-order.js';
import type { ImageSource } from '../../oci/image-store.js';
import type { Descriptor, ImageConfig } from '../../oci/manifest.js';
import { type ImageReference, parseReference } from '../../oci/reference.js';
import type { RegistryClient } from '../../registry/registry-client.js';
import { RegistryDestination } from '../../registry/registry-image.js';

interface TraceableImage {
  readonly source: ImageSource;
  readonly reference: ImageReference;
  /** The manifest of one platform. */
  readonly manifest: Descriptor;
  readonly config: ImageConfig;
  /** The disk's; empty if the image does not say. */
  readonly fileSystem: string;
}

/**
 * Checks, before anything is run, that the new image can be made and pushed.
 *
 * @param name - The new image's.
 * @returns Pushes it with the reads of a start: layer and config, and then the manifest, whose digest it returns.
 * @throws {ObdError} `InvalidArgument` for a name that is no tag of the image's repository; as checkTraceable(); what asking the
 *   registry with the user's login throws.
 */
export async function tracedImagePush(
  name: string,
  { source, reference, manifest: descriptor, config, fileSystem }: TraceableImage,
  client: RegistryClient,
  signal: AbortSignal,
): Promise<(order: LoadOrder) => Promise<string>> {
  const wanted = parseReference(name);
  const { host, repository, target } = reference;
  const isSamePlace = wanted.host === host && wanted.repository === repository;
  if (!isSamePlace || wanted.target === target || wanted.target.includes(':')) {
    const message = `Cannot use --trace-layer ${name}: name another tag of ${host}/${repository}, where the layers are; skopeo can copy the image from there`;
    throw new ObdError(ErrorCodes.InvalidArgument, message);
  }
  const stored = await source.readManifest(descriptor);
  if (stored.kind !== 'image') {
    throw new ObdError(ErrorCodes.Corrupt, `Cannot use ${source.label}: its manifest is an index`);
  }
  checkTraceable(stored.manifest, source.label);
  const destination = new RegistryDestination(client, wanted, signal);
  await destination.check();
  const { mediaType } = descriptor;
  return async (order) => {
    const parts = { manifest: { ...stored.manifest, mediaType }, config, fileSystem };
    const traced = tracedImage(parts, order, new Date());
    for (const { descriptor: blob, bytes } of [traced.layer, traced.config]) {
      if (!(await destination.hasBlob(blob))) await destination.putBlob(blob, bytes);
    }
    return (await destination.publish(traced.manifest, mediaType)).digest;
  };
}

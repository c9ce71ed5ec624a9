/**
 * Converts the image or the index that a name refers to. From an index, one platform's image becomes a plain image, or
 * all of them a new index.
 *
 * The name in the destination is written last, so a reader that resolves it finds a whole image, the old one or the new
 * one.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { ImageDestination, ImageSource } from '../oci/image-store.js';
import { imageFor, imagesIn, readImage } from '../oci/index-images.js';
import type { Descriptor, ImageIndex, StoredImage } from '../oci/manifest.js';
import { OCI_INDEX, OCI_MANIFEST } from '../oci/media-types.js';
import { formatPlatform, hostPlatform, matchesPlatform, type Platform } from '../oci/platform.js';
import {
  type ConvertedManifest,
  type ConvertOptions,
  convertManifest,
  readConvertible,
} from './convert-manifest.js';

/** Which images of an index. */
export interface Selection {
  readonly allPlatforms: boolean;
  /** Undefined means this host's for an index, and any for a single image. */
  readonly platform: Platform | undefined;
}

/**
 * @returns The manifest or index that the name in the destination now refers to.
 * @throws {ObdError} `NotFound` if there is no image for the platform; as convertManifest().
 */
export async function convertImage(
  source: ImageSource,
  destination: ImageDestination,
  selection: Selection,
  options: ConvertOptions,
): Promise<Descriptor> {
  const found = await source.resolve();
  if (found.kind === 'image') {
    return await convertOne(source, destination, found, selection.platform, options);
  }
  if (selection.allPlatforms) {
    const index = await convertAll(source, destination, found.index, options);
    return await destination.publish(index, OCI_INDEX);
  }
  const image = await imageFor(source, found.index, selection.platform ?? hostPlatform());
  return await convertOne(source, destination, image, undefined, options);
}

async function convertOne(
  source: ImageSource,
  destination: ImageDestination,
  { manifest }: StoredImage,
  platform: Platform | undefined,
  options: ConvertOptions,
): Promise<Descriptor> {
  const config = await readConvertible(source, manifest, options.formats);
  if (platform !== undefined && !matchesPlatform(platform, config)) {
    const wanted = formatPlatform(platform);
    throw new ObdError(
      ErrorCodes.NotFound,
      `Cannot find ${wanted} in ${source.label}: it is one image, for ${formatPlatform(config)}`,
    );
  }
  options.progress.imageStarted(manifest.layers.length, sourceBytes(manifest.layers), undefined);
  const converted = await convertManifest({ source, destination, manifest, config }, options);
  const published = await destination.publish(converted.bytes, OCI_MANIFEST);
  await putArtifact(destination, published, converted, options);
  return published;
}

async function convertAll(
  source: ImageSource,
  destination: ImageDestination,
  from: ImageIndex,
  options: ConvertOptions,
): Promise<Buffer> {
  const manifests: Descriptor[] = [];
  for (const entry of imagesIn(from)) {
    const { platform } = entry;
    if (platform !== undefined && platform.os !== 'linux') {
      const left = `${formatPlatform(platform)} left out: only Linux images can be converted`;
      options.progress.warning(left);
      continue;
    }
    const { manifest } = await readImage(source, entry);
    const config = await readConvertible(source, manifest, options.formats);
    const { layers } = manifest;
    const shown = formatPlatform(platform ?? config);
    options.progress.imageStarted(layers.length, sourceBytes(layers), shown);
    const converted = await convertManifest({ source, destination, manifest, config }, options);
    const described = await destination.putManifest(converted.bytes, OCI_MANIFEST);
    await putArtifact(destination, described, converted, options);
    // The platform stays as it is written; an entry's annotations are about the image, not its bytes.
    manifests.push({ ...described, platform, annotations: entry.annotations });
  }
  if (manifests.length === 0) {
    const message = `Cannot convert ${source.label}: it lists no Linux image`;
    throw new ObdError(ErrorCodes.Unsupported, message);
  }
  const { annotations } = from;
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests, annotations };
  return Buffer.from(JSON.stringify(index));
}

/** Some registries refuse artifacts; the annotation of the manifest names the load order all the same. */
async function putArtifact(
  destination: ImageDestination,
  subject: Descriptor,
  { artifact }: ConvertedManifest,
  { progress, stop }: ConvertOptions,
): Promise<void> {
  if (artifact === undefined) return;
  try {
    await destination.putArtifact(subject, artifact);
  } catch (error) {
    stop.signal.throwIfAborted();
    const effect = 'the registry may collect the load order, as no artifact keeps it';
    progress.warning(`${effect}: ${messageOf(error)}`);
  }
}

function sourceBytes(layers: readonly Descriptor[]): number {
  return layers.reduce((sum, { size }) => sum + size, 0);
}

/**
 * Lists the images of an index, and finds the one for a platform.
 *
 * Entries that describe an image rather than being one (buildkit's attestations) are skipped.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { ImageSource } from './image-store.js';
import type { Descriptor, ImageIndex, StoredImage } from './manifest.js';
import { formatPlatform, matchesPlatform, type Platform } from './platform.js';

/** buildkit marks its attestations with this annotation. */
const REFERENCE_TYPE = 'vnd.docker.reference.type';

export function imagesIn({ manifests }: ImageIndex): Descriptor[] {
  return manifests.filter(({ annotations = {}, platform }) => {
    const isAttestation = annotations[REFERENCE_TYPE] !== undefined;
    return !isAttestation && platform?.os !== 'unknown';
  });
}

/**
 * Returns the image for `wanted`, or the only image if the index does not state its platform.
 *
 * @throws {ObdError} `NotFound`, listing the platforms of the index; as readImage().
 */
export async function imageFor(
  source: ImageSource,
  index: ImageIndex,
  wanted: Platform,
): Promise<StoredImage> {
  return await readImage(source, choose(source, imagesIn(index), wanted));
}

/** @throws {ObdError} `Unsupported` for a nested index; errors of the source. */
export async function readImage(source: ImageSource, listed: Descriptor): Promise<StoredImage> {
  const found = await source.readManifest(listed);
  if (found.kind === 'image') return found;
  throw new ObdError(
    ErrorCodes.Unsupported,
    `Cannot use ${source.label}: ${listed.digest} in its index is an index again`,
  );
}

function choose(source: ImageSource, images: readonly Descriptor[], wanted: Platform): Descriptor {
  const [only] = images;
  if (only !== undefined && images.length === 1 && only.platform === undefined) return only;
  const found = images.find(({ platform }) => platform && matchesPlatform(wanted, platform));
  if (found !== undefined) return found;
  const offered = images.flatMap(({ platform }) => (platform ? [formatPlatform(platform)] : []));
  const has = offered.length === 0 ? 'it names no platforms' : `it has ${offered.join(', ')}`;
  throw new ObdError(
    ErrorCodes.NotFound,
    `Cannot find ${formatPlatform(wanted)} in ${source.label}: ${has}; choose one with --platform`,
  );
}

/**
 * The images that an index lists, and the one of them that is for a platform.
 *
 * What describes an image's bytes rather than being one (buildkit's attestations) is not counted.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { ImageSource } from './image-store.js';
import type { Descriptor, ImageIndex, StoredImage } from './manifest.js';
import { formatPlatform, matchesPlatform, type Platform } from './platform.js';

/** By this annotation buildkit marks its attestations. */
const REFERENCE_TYPE = 'vnd.docker.reference.type';

export function imagesIn({ manifests }: ImageIndex): Descriptor[] {
  return manifests.filter(({ annotations = {}, platform }) => {
    const isAttestation = annotations[REFERENCE_TYPE] !== undefined;
    return !isAttestation && platform?.os !== 'unknown';
  });
}

/**
 * The image for `wanted`; or the only one there is, if the index does not say what that is for.
 *
 * @throws {ObdError} `NotFound`, saying what there is; as readImage().
 */
export async function imageFor(
  source: ImageSource,
  index: ImageIndex,
  wanted: Platform,
): Promise<StoredImage> {
  return await readImage(source, choose(source, imagesIn(index), wanted));
}

/** @throws {ObdError} `Unsupported` if it is an index again; what the source throws. */
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

/**
 * Detects a destination name that already names the source image: `obdconv X X`, in any spelling.
 *
 *   references   the same registry (default port, spellings of this machine, names with one address), repository and tag.
 *                A digest is the same as a tag that stands for it, or for an index that lists it. Another registry counts
 *                as the same if it has the very image under that repository and tag: it may be another name of it
 *   layouts      the same directory, by any path, and the same tag. Without a tag the source is its only image
 */
import { stat } from 'node:fs/promises';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { StoredManifest } from '../oci/manifest.js';
import { ImageReference } from '../oci/reference.js';
import { isMissing, REF_NAME_ANNOTATION, readIndex } from './oci-layout.js';
import { type ImageName, imageNameOf, type LayoutName } from './open-image-store.js';
import type { RegistryClient } from './registry-client.js';
import { isLoopback, type RegistryHosts } from './registry-hosts.js';
import { RegistrySource } from './registry-image.js';

export interface OverwriteOptions {
  readonly client: RegistryClient;
  readonly hosts: RegistryHosts;
  readonly signal: AbortSignal;
}

/**
 * Sends requests only to compare with a digest, or with another registry.
 *
 * @throws {ObdError} `InvalidArgument` for an invalid name; errors of reading the destination.
 */
export async function overwritesSource(
  sourceText: string,
  destinationText: string,
  options: OverwriteOptions,
): Promise<boolean> {
  const source = imageNameOf(sourceText);
  const destination = imageNameOf(destinationText);
  if (isReference(source) && isReference(destination)) {
    return await isSameReference(source, destination, options);
  }
  if (isReference(source) || isReference(destination)) return false;
  return await isSameLayout(source, destination);
}

function isReference(name: ImageName): name is ImageReference {
  return name instanceof ImageReference;
}

async function isSameReference(
  source: ImageReference,
  destination: ImageReference,
  { client, hosts, signal }: OverwriteOptions,
): Promise<boolean> {
  if (source.repository !== destination.repository) return false;
  const isSamePlace = placeOf(source, hosts) === placeOf(destination, hosts);
  if (source.digest === undefined) {
    if (source.tag !== destination.tag) return false;
    if (isSamePlace) return true;
  }
  try {
    const digest = source.digest ?? (await resolve(source)).descriptor.digest;
    const found = await resolve(destination);
    const listed = found.kind === 'index' ? found.index.manifests : [];
    return [found.descriptor, ...listed].some((each) => each.digest === digest);
  } catch (error) {
    // Many registries refuse to read what is not there yet; a registry that fails is named by the conversion.
    if (hasCode(error, ErrorCodes.NotFound)) return false;
    if (!isSamePlace && error instanceof ObdError) return false;
    throw error;
  }

  async function resolve(reference: ImageReference): Promise<StoredManifest> {
    return await new RegistrySource(client, reference, signal).resolve();
  }
}

/** The address of a registry. Two protocols at one address are the same registry. */
function placeOf({ host }: ImageReference, hosts: RegistryHosts): string {
  const { protocol, hostname, port } = new URL(hosts.originOf(host.toLowerCase()));
  const name = isLoopback(hostname) ? 'localhost' : hostname;
  return `${name}:${port === '' ? (protocol === 'http:' ? 80 : 443) : port}`;
}

async function isSameLayout(source: LayoutName, destination: LayoutName): Promise<boolean> {
  // An image without a tag is added and replaces no tagged image.
  if (destination.tag === undefined && source.tag !== undefined) return false;
  const found = await identityOf(source.directory);
  if (found === undefined || found !== (await identityOf(destination.directory))) return false;
  if (source.tag !== undefined) return source.tag === destination.tag;
  try {
    const { manifests } = await readIndex(source.directory);
    if (destination.tag === undefined) return manifests.length > 0;
    return manifests.some(({ annotations }) => {
      return annotations?.[REF_NAME_ANNOTATION] === destination.tag;
    });
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

async function identityOf(directory: string): Promise<string | undefined> {
  return await stat(directory).then(
    ({ dev, ino }) => `${dev}:${ino}`,
    () => undefined,
  );
}

/** Turns the argument of `obdctl mount` into an image config for obd-blockd. */
import { resolve } from 'node:path';
import { ErrorCodes, ObdError } from '../errors.js';
import type { DescribedLayer, LayerKind } from '../layers/layer-kind.js';
import type { LowerLayer } from '../layers/lower-layer.js';
import type { Platform } from '../oci/platform.js';
import { isTag, parseReference } from '../oci/reference.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { blobFile } from '../registry/oci-layout.js';
import { OciLayoutSource } from '../registry/oci-layout-source.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { type BlockLayers, blockLayers } from './block-layers.js';
import { type ImageConfig, readImageConfig } from './image-config.js';
import { isMountable } from './image-mount.js';
import type { KnownManifest, KnownManifests } from './known-manifests.js';
import { RememberingSource } from './remembering-source.js';

export interface ServableImage {
  readonly config: ImageConfig;
}

export interface ServableOptions {
  /** The kinds of layer to look for. */
  readonly kinds: readonly LayerKind[];
  readonly platform: Platform | undefined;
  readonly plainHttp: boolean;
  readonly hostsDirectory: string;
  readonly signal: AbortSignal;
  readonly known: KnownManifests;
  /** Called when the registry is unavailable, and its last known manifest is used. */
  readonly onUnavailable: (known: KnownManifest, error: unknown) => void;
}

/**
 * @param image - A path that begins with "/" or ".", `oci:DIR[:TAG]`, or a reference.
 * @throws {ObdError} `InvalidArgument`, `NotFound`, `FailedPrecondition` if the image is not an overlaybd image, and
 *   errors of a registry.
 */
export async function servableImage(
  image: string,
  options: ServableOptions,
): Promise<ServableImage> {
  if (/^\.{0,2}\//.test(image)) {
    const config = await readImageConfig(resolve(image));
    return { config };
  }
  if (image.startsWith('oci:')) return await fromLayout(image.slice('oci:'.length), options);
  return await fromRegistry(image.replace(/^docker:\/\//, ''), options);
}

async function fromLayout(
  text: string,
  { kinds, platform, signal }: ServableOptions,
): Promise<ServableImage> {
  const colon = text.lastIndexOf(':');
  const tag = colon !== -1 && isTag(text.slice(colon + 1)) ? text.slice(colon + 1) : undefined;
  const directory = resolve(tag === undefined ? text : text.slice(0, colon));
  const found = await blockLayers(new OciLayoutSource(directory, tag, signal), kinds, platform);
  return servable(found, '', ({ digest, size: _, ...lower }) => ({
    ...lower,
    file: blobFile(directory, digest),
  }));
}

async function fromRegistry(
  text: string,
  { kinds, platform, plainHttp, hostsDirectory, ...options }: ServableOptions,
): Promise<ServableImage> {
  const reference = parseReference(text);
  const { host, repository } = reference;
  const hosts = new RegistryHosts(plainHttp ? [host] : [], {}, hostsDirectory);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  try {
    const source = new RememberingSource(client, reference, options);
    const found = await blockLayers(source, kinds, platform);
    const url = hosts.blobsUrlOf(host, repository);
    return servable(found, url, (lower) => lower);
  } finally {
    await client.close();
  }
}

function servable(
  { layers, fileSystem }: BlockLayers,
  repoBlobUrl: string,
  lowerOf: (described: DescribedLayer['lower']) => LowerLayer,
): ServableImage {
  if (!isMountable(fileSystem)) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot mount a file system of type ${JSON.stringify(fileSystem)}, which this image has`,
    );
  }
  const lowers = layers.map(({ lower }) => lowerOf(lower));
  const config = { repoBlobUrl, lowers, upper: {}, resultFile: '', accelerationLayer: false };
  return { config };
}

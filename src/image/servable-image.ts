/** Turns the argument of `obdctl mount` into an image config for obd-blockd. */
import { resolve } from 'node:path';
import { ErrorCodes, ObdError } from '../errors.js';
import type { Descriptor } from '../oci/manifest.js';
import type { Platform } from '../oci/platform.js';
import { isTag, parseReference } from '../oci/reference.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { blobFile } from '../registry/oci-layout.js';
import { OciLayoutSource } from '../registry/oci-layout-source.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { type ImageConfig, type LowerLayer, readImageConfig } from './image-config.js';
import { DEFAULT_FILE_SYSTEM, isMountable } from './image-mount.js';
import type { KnownManifest, KnownManifests } from './known-manifests.js';
import { type OverlaybdLayers, overlaybdLayers } from './overlaybd-layers.js';
import { RememberingSource } from './remembering-source.js';

export interface ServableImage {
  readonly config: ImageConfig;
}

export interface ServableOptions {
  readonly platform: Platform | undefined;
  readonly plainHttp: boolean;
  readonly hostsDirectory: string;
  readonly signal: AbortSignal;
  readonly known: KnownManifests;
  /** Called when the registry is unavailable, and its last known manifest is used. */
  readonly onAway: (known: KnownManifest, error: unknown) => void;
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
  { platform, signal }: ServableOptions,
): Promise<ServableImage> {
  const colon = text.lastIndexOf(':');
  const tag = colon !== -1 && isTag(text.slice(colon + 1)) ? text.slice(colon + 1) : undefined;
  const directory = resolve(tag === undefined ? text : text.slice(0, colon));
  const found = await overlaybdLayers(new OciLayoutSource(directory, tag, signal), platform);
  return servable(found, '', ({ digest }) => ({ file: blobFile(directory, digest) }));
}

async function fromRegistry(
  text: string,
  { platform, plainHttp, hostsDirectory, ...options }: ServableOptions,
): Promise<ServableImage> {
  const reference = parseReference(text);
  const { host, repository } = reference;
  const hosts = new RegistryHosts(plainHttp ? [host] : [], {}, hostsDirectory);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  try {
    const found = await overlaybdLayers(
      new RememberingSource(client, reference, options),
      platform,
    );
    const url = `${hosts.originOf(host)}/v2/${repository}/blobs`;
    return servable(found, url, ({ digest, size }) => ({ digest, size }));
  } finally {
    await client.close();
  }
}

function servable(
  { layers, fileSystem = DEFAULT_FILE_SYSTEM }: OverlaybdLayers,
  repoBlobUrl: string,
  lowerOf: (layer: Descriptor) => LowerLayer,
): ServableImage {
  if (!isMountable(fileSystem)) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot mount a file system of type ${JSON.stringify(fileSystem)}, which this image has`,
    );
  }
  const lowers = layers.map(lowerOf);
  const config = { repoBlobUrl, lowers, upper: {}, resultFile: '', accelerationLayer: false };
  return { config };
}

/**
 * An overlaybd image opened in this process, without a daemon: its disk, of which only what is read is fetched, and its config.
 */
import { resolve } from 'node:path';
import { ErrorCodes, ObdError } from '../errors.js';
import { IndexBudget } from '../io/index-budget.js';
import type { LayerDependencies } from '../layers/open-layer.js';
import { type ImageSource, readSmallBlob } from '../oci/image-store.js';
import { CONFIG_BYTES_MAX, parseImageConfig } from '../oci/manifest.js';
import type { Platform } from '../oci/platform.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { FetchedBlob } from '../registry/fetched-blob.js';
import { blobFile } from '../registry/oci-layout.js';
import { imageNameOf, openImageSource } from '../registry/open-image-store.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { blockLayers } from './block-layers.js';
import { type ImageConfig, readImageConfig } from './image-config.js';
import { openImage } from './open-image.js';

/** The indexes of one image; those of the largest known have 100 MiB. */
const INDEX_BYTES_MAX = 512 << 20;

export interface ReadableOptions extends LayerDependencies {
  /** Which image of an index; undefined means this host's. */
  readonly platform: Platform | undefined;
  readonly plainHttp: boolean;
  readonly hostsDirectory: string;
  readonly signal: AbortSignal;
}

export interface ReadableImage {
  readonly disk: Awaited<ReturnType<typeof openImage>>['disk'];
  /** The image's own config (OCI image spec, "config"); empty for a disk that is described by a config.v1.json. */
  readonly config: object;
  close(): Promise<void>;
}

/**
 * @param image - A path that begins with "/" or ".", `oci:DIR[:TAG]`, or a reference.
 * @throws {ObdError} `FailedPrecondition` if the image was never converted, as openImage() and blockLayers().
 */
export async function readableImage(
  image: string,
  options: ReadableOptions,
): Promise<ReadableImage> {
  const { formats, decoded, plainHttp, hostsDirectory, signal } = options;
  const name = imageNameOf(isPath(image) ? `oci:${image}` : image);
  const plain = plainHttp && 'host' in name ? [name.host] : [];
  const hosts = new RegistryHosts(plain, {}, hostsDirectory);
  const client = new RegistryClient({ hosts, credentials: new DockerCredentials() });
  try {
    const described = isPath(image)
      ? { layers: await readImageConfig(resolve(image)), config: {} }
      : await fromManifest(openImageSource(image, { client, signal }), name, hosts, options);
    const opened = await openImage(described.layers, {
      formats,
      decoded,
      memory: new IndexBudget(INDEX_BYTES_MAX).account(false),
      openBlob: async ({ host, repository, digest, sizeBytes }) =>
        new FetchedBlob(await client.blobRanges(host, repository, digest, sizeBytes), signal),
    });
    const close = async () => {
      opened.close();
      await client.close();
    };
    return { disk: opened.disk, config: described.config, close };
  } catch (error) {
    await client.close();
    throw error;
  }
}

function isPath(image: string): boolean {
  return /^\.{0,2}\//.test(image);
}

async function fromManifest(
  source: ImageSource,
  name: ReturnType<typeof imageNameOf>,
  hosts: RegistryHosts,
  { formats, platform }: ReadableOptions,
): Promise<{ layers: ImageConfig; config: object }> {
  const { layers, fileSystem, config } = await blockLayers(source, formats, platform);
  if (fileSystem !== 'ext4' && fileSystem !== '') {
    const problem = `its file system is ${JSON.stringify(fileSystem)}, and only ext4 is read`;
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot read the files of ${source.label}: ${problem}`,
    );
  }
  const bytes = await readSmallBlob(source, config, CONFIG_BYTES_MAX);
  const lowers = layers.map(({ lower }) => {
    if ('host' in name) return lower;
    const { digest, size: _, ...rest } = lower;
    return { ...rest, file: blobFile(resolve(name.directory), digest) };
  });
  const repoBlobUrl = 'host' in name ? hosts.blobsUrlOf(name.host, name.repository) : '';
  const described = { repoBlobUrl, lowers, upper: {}, resultFile: '', accelerationLayer: false };
  return { layers: described, config: parseImageConfig(bytes, `the config of ${source.label}`) };
}

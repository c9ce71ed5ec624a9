/** What the far registry shows of an image's starts: the load order of an artifact, or the one that obdconv predicted. */
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { CHUNK_BYTES } from '../../src/io/random-access-file.js';
import {
  DOCUMENT_BYTES_MAX,
  type LoadOrder,
  parseLoadOrder,
} from '../../src/load-order/load-order.js';
import {
  COMMAND_ANNOTATION,
  HOT_PAGES_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
  type NamedBlob,
  parseNamedBlob,
} from '../../src/load-order/load-order-annotations.js';
import { LOAD_ORDER_ARTIFACT, orderArtifact } from '../../src/load-order/order-artifact.js';
import { readSmallBlob } from '../../src/oci/image-store.js';
import type { Descriptor } from '../../src/oci/manifest.js';
import { parseReference } from '../../src/oci/reference.js';
import { publishArtifact } from '../../src/registry/publish-artifact.js';
import { RegistryClient } from '../../src/registry/registry-client.js';
import { RegistryHosts } from '../../src/registry/registry-hosts.js';
import { RegistrySource } from '../../src/registry/registry-image.js';
import type { FarRegistry } from './far-registry.js';

export interface PublishedOrder {
  readonly order: LoadOrder;
  /** Of the order's chunks, as the registry has them. */
  readonly chunkBytes: number;
  readonly hot: NamedBlob | undefined;
}

/** @param image - `REPOSITORY:TAG`. @throws {ObdError} `NotFound` without a load order; errors of the registry. */
export async function publishedOrder(
  registry: FarRegistry,
  image: string,
): Promise<PublishedOrder> {
  return await withImage(registry, image, async ({ annotations, sizes, readOrder }) => {
    const order = await readOrder();
    let chunkBytes = 0;
    for (let i = 0; i < order.chunks.length; i += 2) {
      const { digest } = order.layers[order.chunks[i]!]!;
      const left = (sizes.get(digest) ?? 0) - order.chunks[i + 1]! * CHUNK_BYTES;
      chunkBytes += Math.min(CHUNK_BYTES, left);
    }
    return { order, chunkBytes, hot: parseNamedBlob(annotations[HOT_PAGES_ANNOTATION] ?? '') };
  });
}

/** Replaces the artifact of the image by one as nodes publish for layers without a hash tree: its load order alone. */
export async function leaveOutHotBlob(registry: FarRegistry, image: string): Promise<void> {
  await withImage(
    registry,
    image,
    async ({ client, host, repository, subject, annotations, readOrder }) => {
      const command = annotations[COMMAND_ANNOTATION] ?? '';
      const artifact = orderArtifact(await readOrder(), undefined, { command, name: '' });
      const replacing = { ...artifact, replaces: () => true };
      await publishArtifact(client, host, repository, subject, replacing);
    },
  );
}

interface ShownImage {
  readonly client: RegistryClient;
  readonly host: string;
  readonly repository: string;
  readonly subject: Descriptor;
  /** Of the artifact; without one, of the image's manifest. */
  readonly annotations: Readonly<Record<string, string>>;
  /** Of the layers' blobs, in bytes, by digest. */
  readonly sizes: ReadonlyMap<string, number>;
  readonly readOrder: () => Promise<LoadOrder>;
}

async function withImage<T>(
  registry: FarRegistry,
  image: string,
  use: (shown: ShownImage) => Promise<T>,
): Promise<T> {
  return await registry.onLoopback(async (at) => {
    const client = new RegistryClient({
      hosts: new RegistryHosts([]),
      credentials: { label: 'none', find: async () => undefined },
    });
    try {
      const reference = parseReference(`${at}/${image}`);
      const { host, repository } = reference;
      const source = new RegistrySource(client, reference);
      const stored = await source.resolve();
      const { layers = [], annotations: own = {} } = stored.kind === 'image' ? stored.manifest : {};
      const subject = stored.descriptor;
      const { digest } = subject;
      const [artifact] = await client.referrers(host, repository, digest, LOAD_ORDER_ARTIFACT);
      const { annotations } = artifact ?? { annotations: own };
      const readOrder = async (): Promise<LoadOrder> => {
        const named = parseNamedBlob(annotations[LOAD_ORDER_ANNOTATION] ?? '');
        if (named === undefined) {
          throw new ObdError(ErrorCodes.NotFound, `There is no load order of ${image}`);
        }
        const descriptor = { mediaType: '', digest: named.digest, size: named.sizeBytes };
        const bytes = await readSmallBlob(source, descriptor, DOCUMENT_BYTES_MAX);
        return parseLoadOrder(bytes, named.digest);
      };
      const sizes = new Map(layers.map((layer) => [layer.digest, layer.size]));
      return await use({ client, host, repository, subject, annotations, sizes, readOrder });
    } finally {
      await client.close();
    }
  });
}

/**
 * Finds out about an overlaybd layer what its client does not say: the repository it can be fetched from, given its digest,
 * and, given its chain ID, that it is one.
 *
 *   1. The image's reference, where the client sends it as a label (`obdctl rpull`, CRI): host with port, repository.
 *   2. Otherwise containerd's content store, in the client's namespace: the manifest that names the layer is there before
 *      the first layer is prepared, labelled with the host and the repositories it came from. That label has lost
 *      the port: `[registry.hosts]` of the configuration says where such a host answers.
 *
 * What labels say may be no longer true, leads elsewhere if the port is missing that content labels have lost, and the
 * client may have a login that we have not. So the registry is asked for the blob, as obd-blockd would: a snapshot is
 * not made of a layer that it could not read.
 *
 * The content service may be asked while containerd waits for us. Its snapshots service may not: garbage collection may
 * hold what that needs, and wait for us too.
 *
 * Cost: one request to the registry for each layer, and without a reference one pass over the namespace's manifests;
 * those seen once are remembered.
 */
import { connectContainerd } from '../containerd/connect.js';
import { ContentStore } from '../containerd/content-store.js';
import { messageOf, ObdError } from '../errors.js';
import { sha256Of } from '../registry/digest.js';
import { MANIFEST_BYTES_MAX, parseManifest } from '../registry/manifest.js';
import { isHost, isRepository, parseReference } from '../registry/reference.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { RegistryHosts } from '../registry/registry-hosts.js';
import { IMAGE_REF_LABELS, type OverlaybdBlob, overlaybdBlobOf } from './labels.js';
import type { Log } from './log.js';
import type { Labels } from './snapshot.js';

const MANIFESTS_FILTER = 'labels."containerd.io/gc.ref.content.config"';
const SOURCE_LABEL = 'containerd.io/distribution.source.';
/** A layer has a few hundred bytes of digests and annotations. */
const MANIFESTS_REMEMBERED_MAX = 4096;

export interface ImageLocatorParts {
  readonly containerdSocket: string;
  readonly hosts: RegistryHosts;
  /** With the same hosts, and with limits for a question that a pull waits for. */
  readonly registry: RegistryClient;
  readonly log: Log;
}

export class ImageLocator {
  readonly #parts: ImageLocatorParts;
  /** Of manifests by digest. A manifest never changes. */
  readonly #layersOf = new Map<string, readonly KnownLayer[]>();

  constructor(parts: ImageLocatorParts) {
    this.#parts = parts;
  }

  /**
   * The URL that the layer's digest is to be appended to, such as `https://ghcr.io/v2/team/app/blobs`; undefined if
   * neither labels nor containerd know one where the layer is.
   */
  async repoBlobUrl(
    digest: string,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<string | undefined> {
    const named = await this.#firstWithBlob(this.#referencesIn(labels), digest);
    if (named !== undefined || namespace === undefined) return named;
    return await this.#orUnknown(() => this.#askContainerd(digest, namespace));
  }

  #referencesIn(labels: Labels): Source[] {
    return IMAGE_REF_LABELS.flatMap((label) => {
      const text = labels[label];
      if (text === undefined) return [];
      try {
        return [parseReference(text)];
      } catch (error) {
        if (!(error instanceof ObdError)) throw error;
        this.#parts.log.warn({ err: error, label }, 'a label is no image reference: ignoring it');
        return [];
      }
    });
  }

  /**
   * The overlaybd layer with this chain ID, if a manifest in the content store has it. Those of plain layers are not
   * computed: a blob of an overlaybd layer is its own diff ID, and of others only the config knows it.
   */
  async blobOfChain(chainId: string, namespace: string): Promise<OverlaybdBlob | undefined> {
    return await this.#orUnknown(async () => {
      for await (const { layers } of this.#manifests(namespace)) {
        const found = layers.find((layer) => layer.chainId === chainId);
        if (found !== undefined) return overlaybdBlobOf(found.annotations);
      }
      return undefined;
    });
  }

  /** Not to be told is no failure: there is another way, and it takes longer. */
  async #orUnknown<T>(ask: () => Promise<T | undefined>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      this.#parts.log.warn({ err: error }, 'containerd does not tell where a layer is from');
      return undefined;
    }
  }

  async #askContainerd(digest: string, namespace: string): Promise<string | undefined> {
    const found = new Map<string, Source>();
    for await (const { labels, layers } of this.#manifests(namespace)) {
      if (!layers.some((layer) => layer.digest === digest)) continue;
      for (const source of sourcesIn(labels)) {
        found.set(`${source.host}/${source.repository}`, source);
      }
    }
    return await this.#firstWithBlob(found.values(), digest);
  }

  async *#manifests(
    namespace: string,
  ): AsyncGenerator<{ labels: Labels; layers: readonly KnownLayer[] }, void, undefined> {
    const client = connectContainerd(this.#parts.containerdSocket, namespace);
    try {
      const content = new ContentStore(client);
      for await (const { digest, sizeBytes, labels } of content.list([MANIFESTS_FILTER])) {
        if (sizeBytes > MANIFEST_BYTES_MAX) continue;
        yield { labels, layers: await this.#layers(content, digest) };
      }
    } finally {
      client.close();
    }
  }

  /** The URL of the first source that has the blob and gives it to us. */
  async #firstWithBlob(sources: Iterable<Source>, digest: string): Promise<string | undefined> {
    const { registry, log } = this.#parts;
    for (const { host, repository } of sources) {
      try {
        await registry.blobRanges(host, repository, digest, undefined);
        return `${this.#parts.hosts.originOf(host)}/v2/${repository}/blobs`;
      } catch (error) {
        const what =
          'passing over a repository; docker_config has its login, [registry.hosts] its port';
        log.warn({ err: error, digest, host, repository }, what);
      }
    }
    return undefined;
  }

  /** None of a manifest that cannot be read, which is remembered only if that is the manifest's own fault. */
  async #layers(content: ContentStore, manifestDigest: string): Promise<readonly KnownLayer[]> {
    const remembered = this.#layersOf.get(manifestDigest);
    if (remembered !== undefined) return remembered;
    const { log } = this.#parts;
    let bytes: Buffer;
    try {
      bytes = await bytesOf(content, manifestDigest);
    } catch (error) {
      // It may have been removed since it was listed, or containerd be busy.
      log.info({ manifestDigest, reason: messageOf(error) }, 'passing over a manifest, for now');
      return [];
    }
    const layers = layersIn(bytes, manifestDigest, log);
    if (this.#layersOf.size >= MANIFESTS_REMEMBERED_MAX) this.#layersOf.clear();
    this.#layersOf.set(manifestDigest, layers);
    return layers;
  }
}

interface KnownLayer {
  readonly digest: string;
  /** Right if this layer and those below it are overlaybd layers. */
  readonly chainId: string;
  readonly annotations: Labels;
}

interface Source {
  readonly host: string;
  readonly repository: string;
}

/** A label for each host; its value lists repositories, with commas between. */
function sourcesIn(labels: Labels): Source[] {
  const hosts = Object.entries(labels).filter(([key]) => key.startsWith(SOURCE_LABEL));
  const sources = hosts.flatMap(([key, repositories]) =>
    repositories
      .split(',')
      .map((repository) => ({ host: key.slice(SOURCE_LABEL.length), repository })),
  );
  return sources.filter(({ host, repository }) => isHost(host) && isRepository(repository));
}

async function bytesOf(content: ContentStore, digest: string): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  for await (const piece of content.read(digest)) pieces.push(piece);
  return Buffer.concat(pieces);
}

function layersIn(manifest: Uint8Array, manifestDigest: string, log: Log): readonly KnownLayer[] {
  try {
    const parsed = parseManifest(manifest, undefined, `manifest ${manifestDigest}`);
    if (parsed.kind !== 'image') return [];
    let chainId = '';
    return parsed.manifest.layers.map(({ digest, annotations = {} }) => {
      chainId = chainId === '' ? digest : sha256Of(Buffer.from(`${chainId} ${digest}`));
      return { digest, chainId, annotations };
    });
  } catch (error) {
    log.info({ manifestDigest, reason: messageOf(error) }, 'passing over a manifest');
    return [];
  }
}

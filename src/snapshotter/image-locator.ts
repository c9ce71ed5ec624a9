/**
 * Finds out about an overlaybd layer what its client does not say: the repository it can be fetched from, given its digest,
 * and, given its chain ID, that it is one.
 *
 *   1. The image's reference, where the client sends it as a label (`obdctl rpull`, CRI): host with port, repository.
 *   2. Otherwise containerd's content store, in the client's namespace: the manifest that names the layer is there before
 *      the first layer is prepared, labelled with the host and the repositories it came from. That label has lost
 *      the port: it is looked for where candidate-addresses.ts says.
 *
 * Only one registry is ever meant. Bytes that are read lazily are that registry's word, and nothing checks them against the
 * digest: of an image that a second registry offers under the same digests, the first one's word proves nothing. So a
 * reference excludes all registries but its own, and where manifests of several registries name the layer, none is chosen.
 *
 * What labels say may be no longer true, leads elsewhere if the port is missing that content labels have lost, and the
 * client may have a login that we have not. So the registry is asked for the blob, as obd-blockd would: a snapshot is
 * not made of a layer that it could not read.
 *
 * The content service may be asked while containerd waits for us. Its snapshots service may not: garbage collection may
 * hold what that needs, and wait for us too.
 *
 * Cost: one request for each layer to each address that may have it, all at once (registry-probes.ts), and without a
 * reference one pass over the namespace's manifests; those seen once are remembered.
 */
import { connectContainerd } from '../containerd/connect.js';
import { ContentStore } from '../containerd/content-store.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { chainIdOn } from '../registry/chain-id.js';
import type { Credentials } from '../registry/credentials.js';
import { MANIFEST_BYTES_MAX, parseManifest } from '../registry/manifest.js';
import { isHost, isRepository, parseReference } from '../registry/reference.js';
import type { RegistryClient } from '../registry/registry-client.js';
import type { RegistryHosts } from '../registry/registry-hosts.js';
import { addressesOf, type Source } from './candidate-addresses.js';
import {
  followingLayers,
  IMAGE_REF_LABELS,
  type OverlaybdBlob,
  overlaybdBlobOf,
} from './labels.js';
import type { Log } from './log.js';
import { RegistryProbes } from './registry-probes.js';
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
  /** For the namespaces of containerd that have logins of their own. */
  readonly namespaces: ReadonlyMap<string, NamespaceAccess>;
  readonly log: Log;
}

interface NamespaceAccess {
  readonly credentials: Credentials;
  /** As `registry`, with these credentials. */
  readonly registry: RegistryClient;
}

/** A layer as its image describes it. */
export interface WantedLayer {
  readonly chainId: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

/** Where the image with a layer was pulled from. */
export interface LayerOrigin {
  /** As registryAddress() has it; undefined if it is not known, or is not one alone. */
  readonly registry: string | undefined;

  /**
   * The URL that the layer's digest is to be appended to, such as `https://ghcr.io/v2/team/app/blobs`; undefined if the
   * layer is in no repository that is known, or is not given to us.
   */
  repoBlobUrl(): Promise<string | undefined>;

  /** Whether a login for this registry is configured for the client's namespace. */
  hasNamespaceLogin(): Promise<boolean>;
}

/** `host:port` of the registry that a URL leads to, whatever the protocol. */
export function registryAddress(url: string): string {
  const { protocol, hostname, port } = new URL(url);
  return `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`;
}

export class ImageLocator {
  readonly #parts: ImageLocatorParts;
  readonly #probes: RegistryProbes;
  readonly #namespaceProbes: ReadonlyMap<string, RegistryProbes>;
  /** Of manifests by digest. A manifest never changes. */
  readonly #layersOf = new Map<string, readonly KnownLayer[]>();

  constructor(parts: ImageLocatorParts) {
    this.#parts = parts;
    this.#probes = new RegistryProbes(parts.registry, parts.hosts);
    this.#namespaceProbes = new Map(
      [...parts.namespaces].map(([name, { registry }]) => [
        name,
        new RegistryProbes(registry, parts.hosts),
      ]),
    );
  }

  /** Asks registries anew, as when logins or addresses were changed. */
  forget(): void {
    for (const probes of [this.#probes, ...this.#namespaceProbes.values()]) probes.forget();
  }

  /** Asks containerd at most, and registries only where a port is missing; its repoBlobUrl() asks the registry. */
  async origin(
    layer: WantedLayer,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<LayerOrigin> {
    const named = this.#referenceIn(labels);
    const listed = async () =>
      namespace === undefined
        ? []
        : ((await this.#orUnknown(() => this.#askContainerd(layer.chainId, namespace))) ?? []);
    const sources =
      named === undefined ? await this.#located(await listed(), layer, namespace) : [named];
    const registries = new Set(sources.map((source) => this.#addressOf(source)));
    const [registry] = registries;
    if (registries.size > 1) {
      const what =
        'images of several registries name this layer, and the client does not say which one it pulls: it is downloaded as a whole';
      this.#parts.log.warn({ ...layer, namespace, registries: [...registries] }, what);
    }
    const isOne = registries.size === 1;
    return {
      registry: isOne ? registry : undefined,
      repoBlobUrl: async () => {
        if (!isOne) return undefined;
        const asked = this.#firstWithBlob(sources, layer, namespace);
        // Clients prepare one layer after the other, and each would wait for its own answer.
        for (const digest of followingLayers(labels)) {
          if (digest !== layer.digest) void this.#ask(sources, { digest }, namespace);
        }
        const found = await asked;
        if (found !== undefined || named === undefined) return found;
        const others = await listed();
        const same = others.filter((source) => this.#addressOf(source) === registry);
        return await this.#firstWithBlob(same, layer, namespace);
      },
      hasNamespaceLogin: async () =>
        isOne && (await this.#hasLogin(sources[0]?.host ?? '', namespace)),
    };
  }

  /** Never rejects: each answer is a size, undefined if the registry does not say, or an error. */
  #ask(
    sources: readonly Source[],
    { digest }: Pick<WantedLayer, 'digest'>,
    namespace: string | undefined,
  ): Promise<{ readonly sizeBytes?: number | undefined; readonly error?: unknown }>[] {
    const probes = this.#namespaceProbes.get(namespace ?? '') ?? this.#probes;
    return sources.map(({ host, repository, isGuess = false }) =>
      probes.ask({ host, repository, digest }, isGuess).catch((error: unknown) => ({ error })),
    );
  }

  #addressOf({ host }: Source): string {
    return registryAddress(this.#parts.hosts.originOf(host));
  }

  async #hasLogin(host: string, namespace: string | undefined): Promise<boolean> {
    const own = this.#parts.namespaces.get(namespace ?? '');
    for (const name of own === undefined ? [] : this.#parts.hosts.loginNames(host)) {
      if ((await own?.credentials.find(name)) !== undefined) return true;
    }
    return false;
  }

  /** Of the first label that has one: an image's own annotations may add the others. */
  #referenceIn(labels: Labels): Source | undefined {
    for (const label of IMAGE_REF_LABELS) {
      const text = labels[label];
      if (text === undefined) continue;
      try {
        return parseReference(text);
      } catch (error) {
        if (!(error instanceof ObdError)) throw error;
        this.#parts.log.warn({ err: error, label }, 'a label is no image reference: ignoring it');
      }
    }
    return undefined;
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

  async #askContainerd(chainId: string, namespace: string): Promise<Source[]> {
    const found = new Map<string, Source>();
    for await (const { labels, layers } of this.#manifests(namespace)) {
      if (!layers.some((layer) => layer.chainId === chainId)) continue;
      for (const source of sourcesIn(labels)) {
        found.set(`${source.host}/${source.repository}`, source);
      }
    }
    return [...found.values()];
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

  /**
   * The sources with the ports that content labels have lost. Several addresses that a name may stand for are all asked; the
   * only one that has the blob is meant. One that refuses to say may be meant as well: then all are returned.
   */
  async #located(
    sources: readonly Source[],
    layer: WantedLayer,
    namespace: string | undefined,
  ): Promise<Source[]> {
    const { hosts, containerdSocket } = this.#parts;
    const located = sources.map(async (source) => {
      const addresses = await addressesOf(source, hosts, containerdSocket, namespace ?? '');
      if (addresses.length === 1) return addresses;
      const outcomes = await Promise.all(this.#ask(addresses, layer, namespace));
      const meant = addresses.filter((_, i) => !isAbsent(outcomes[i]?.error));
      return meant.length > 0 ? meant : addresses.slice(0, 1);
    });
    return (await Promise.all(located)).flat();
  }

  /** The URL of the first source that has the blob and gives it to us. All are asked at once. */
  async #firstWithBlob(
    sources: readonly Source[],
    layer: WantedLayer,
    namespace: string | undefined,
  ): Promise<string | undefined> {
    const { hosts, log } = this.#parts;
    const { digest, sizeBytes: annotated } = layer;
    const asked = this.#ask(sources, layer, namespace);
    for (const [i, { host, repository }] of sources.entries()) {
      const { error, sizeBytes = annotated } = (await asked[i]) ?? {};
      if (error !== undefined) {
        const what =
          'passing over a repository: docker_config has its login, hosts_dir how to reach it';
        log.warn({ err: error, digest, host, repository }, what);
      } else if (sizeBytes !== annotated) {
        const found = { digest, host, repository, sizeBytes, annotated };
        log.warn(found, 'passing over a repository: its blob has not the size that the image says');
      } else {
        return `${hosts.originOf(host)}/v2/${repository}/blobs`;
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
      chainId = chainIdOn(chainId, digest);
      return { digest, chainId, annotations };
    });
  } catch (error) {
    log.info({ manifestDigest, reason: messageOf(error) }, 'passing over a manifest');
    return [];
  }
}

/** Whether a registry said, or could not be reached to say, that it has not the blob. */
function isAbsent(error: unknown): boolean {
  return error !== undefined && !hasCode(error, ErrorCodes.Unauthorized);
}

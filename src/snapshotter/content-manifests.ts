/**
 * The manifests in containerd's content store, in the client's namespace. The manifest that names a layer is stored
 * before the first layer is prepared, and has labels with its hosts and repositories.
 *
 * Every manifest that names a layer may be the one being pulled. So sourcesOf() returns all their sources, or nothing:
 *
 *   - A manifest that names the layer and has no source label makes the answer "not known".
 *   - An unreadable manifest does, too: it may name the layer.
 *   - containerd may accept a manifest that is too large or breaks a rule of manifest.ts. It counts only if the layer's
 *     digest is anywhere in its text: an odd manifest of another image must not end lazy pulls on a host.
 *   - A manifest that has gone since it was listed belongs to no pull: pulls hold a lease.
 *
 * Only manifests that refer to their config by a label are listed. All clients set that label before they prepare a
 * layer, as containerd's garbage collection otherwise removes the config.
 *
 * Cost: one list of the namespace's manifests per call; parsed manifests are cached.
 */
import { connectContainerd } from '../containerd/connect.js';
import { type ContentInfo, ContentStore } from '../containerd/content-store.js';
import { ErrorCodes, hasCode, messageOf } from '../errors.js';
import type { LayerDescription } from '../layers/layer-kind.js';
import { commandDigest } from '../load-order/command-line.js';
import { chainIdOn } from '../oci/chain-id.js';
import {
  CONFIG_BYTES_MAX,
  type Descriptor,
  MANIFEST_BYTES_MAX,
  parseImageConfig,
  parseManifest,
} from '../oci/manifest.js';
import { isHost, isRepository, withoutPort } from '../oci/reference.js';
import { imageArgs } from '../predict/start-command.js';
import type { Source } from './candidate-addresses.js';
import type { Log } from './log.js';
import type { Labels } from './snapshot.js';

const MANIFESTS_FILTER = 'labels."containerd.io/gc.ref.content.config"';
const SOURCE_LABEL = 'containerd.io/distribution.source.';
/** Limit for remembered manifests, by their stored size. A usual one has a few KiB. */
const REMEMBERED_BYTES_MAX = 32 << 20;
/** Limit for searching a manifest too large to parse. Registries need not accept more than MANIFEST_BYTES_MAX. */
const SEARCHED_BYTES_MAX = 16 * MANIFEST_BYTES_MAX;

export interface KnownLayer {
  readonly digest: string;
  /** Right if this layer and those below it are overlaybd layers. */
  readonly chainId: string;
  readonly mediaType: string;
  readonly size: number;
  readonly annotations: Labels;
}

/** A manifest of one platform, with its layers, bottom first. */
export interface KnownImage {
  /** The descriptor of its config; undefined for an index. */
  readonly config: Pick<Descriptor, 'digest' | 'size'> | undefined;
  readonly digest: string;
  readonly sizeBytes: number;
  readonly mediaType: string;
  readonly annotations: Labels;
  readonly layers: readonly KnownLayer[];
}

/** A manifest, or why it is not known. */
type Contents = KnownImage | 'not parsed' | 'unreadable' | 'gone';

interface RememberedManifest {
  readonly contents: KnownImage | 'not parsed';
  readonly sizeBytes: number;
}

/** A label's claim that a layer belongs to the image at a reference. */
interface Claim {
  readonly label: string;
  readonly text: string;
  readonly source: Source;
  readonly chainId: string;
  readonly blobDigest: string;
}

export class ContentManifests {
  readonly #containerdSocket: string;
  readonly #log: Log;
  /** By digest, oldest first. A manifest never changes. */
  readonly #remembered = new Map<string, RememberedManifest>();
  #rememberedBytes = 0;

  constructor(containerdSocket: string, log: Log) {
    this.#containerdSocket = containerdSocket;
    this.#log = log;
  }

  /**
   * The sources of the images with this blob, each host without its port.
   *
   * @returns undefined if a manifest that has, or may have, the blob does not say.
   * @throws {ObdError} containerd's error.
   */
  async sourcesOf(blobDigest: string, namespace: string): Promise<Source[] | undefined> {
    const found = new Map<string, Source>();
    for await (const { content, info, contents } of this.#all(namespace)) {
      const { digest: manifestDigest, labels } = info;
      if (contents === 'unreadable') return undefined;
      const names =
        contents === 'not parsed'
          ? await this.#mentions(content, info, blobDigest)
          : contents !== 'gone' && contents.layers.some(({ digest }) => digest === blobDigest);
      if (!names) continue;
      const sources = sourcesIn(labels);
      if (sources === undefined) {
        const what =
          "manifest has no registry, the layer's origin is unknown: pull its image again, or remove it";
        this.#log.warn({ manifestDigest, blobDigest, namespace }, what);
        return undefined;
      }
      for (const source of sources) found.set(`${source.host}/${source.repository}`, source);
    }
    return [...found.values()];
  }

  /**
   * Whether the client set a label, and not the image: containerd passes annotations of a layer on as labels.
   *
   *   - A manifest that names the layer must be from that host and repository, as content labels say.
   *   - No manifest that names it, or may name it, may have the label as an annotation: otherwise the image would choose
   *     the port, which content labels have lost.
   *
   * @throws {ObdError} containerd's error.
   */
  async confirms({ label, text, source, ...layer }: Claim, namespace: string): Promise<boolean> {
    const { chainId, blobDigest } = layer;
    let isFromThere = false;
    for await (const { content, info, contents } of this.#all(namespace)) {
      if (contents === 'gone') continue;
      if (contents === 'unreadable') return false;
      if (contents === 'not parsed') {
        if (await this.#mentions(content, info, blobDigest)) return false;
        continue;
      }
      const named = contents.layers.filter(({ digest }) => digest === blobDigest);
      if (named.some(({ annotations }) => annotations[label] === text)) return false;
      if (!named.some((each) => each.chainId === chainId)) continue;
      isFromThere ||= isListed(info.labels, source);
    }
    return isFromThere;
  }

  /**
   * A manifest's description of the layer with this chain ID, if it is an overlaybd layer. Chain IDs of plain layers are not
   * computed: an overlaybd blob's digest is its diff ID, but only the config has the diff ID of a plain layer.
   *
   * @throws {ObdError} containerd's error.
   */
  async layerOfChain(chainId: string, namespace: string): Promise<LayerDescription | undefined> {
    for await (const { contents } of this.#all(namespace)) {
      if (typeof contents === 'string') continue;
      const found = contents.layers.find((layer) => layer.chainId === chainId);
      if (found === undefined) continue;
      const { mediaType, annotations } = found;
      return { mediaType, annotations };
    }
    return undefined;
  }

  /**
   * The image with this layer; of several such images the one that a pull has labelled last.
   *
   * @throws {ObdError} containerd's error.
   */
  async imageWith(chainId: string, namespace: string): Promise<KnownImage | undefined> {
    let latest: { readonly image: KnownImage; readonly updatedMs: number } | undefined;
    for await (const { info, contents } of this.#all(namespace)) {
      if (typeof contents === 'string') continue;
      if (!contents.layers.some((layer) => layer.chainId === chainId)) continue;
      const { updatedMs } = info;
      if (latest === undefined || updatedMs > latest.updatedMs)
        latest = { image: contents, updatedMs };
    }
    return latest?.image;
  }

  /**
   * The digest of the command line that an image's config names (commandDigest()); empty if it names none, or cannot be read.
   */
  async commandOf({ config }: KnownImage, namespace: string): Promise<string> {
    if (config === undefined || config.size > CONFIG_BYTES_MAX) return '';
    const client = connectContainerd(this.#containerdSocket, namespace);
    try {
      const pieces: Uint8Array[] = [];
      for await (const piece of new ContentStore(client).read(config.digest)) pieces.push(piece);
      const bytes = Buffer.concat(pieces);
      return commandDigest(imageArgs(parseImageConfig(bytes, `config ${config.digest}`)));
    } catch (err) {
      this.#log.debug({ err, digest: config.digest }, 'image config unreadable');
      return '';
    } finally {
      client.close();
    }
  }

  async *#all(
    namespace: string,
  ): AsyncGenerator<
    { content: ContentStore; info: ContentInfo; contents: Contents },
    void,
    undefined
  > {
    const client = connectContainerd(this.#containerdSocket, namespace);
    try {
      const content = new ContentStore(client);
      for await (const info of content.list([MANIFESTS_FILTER])) {
        yield { content, info, contents: await this.#contents(content, info) };
      }
    } finally {
      client.close();
    }
  }

  async #contents(content: ContentStore, { digest, sizeBytes }: ContentInfo): Promise<Contents> {
    if (sizeBytes > MANIFEST_BYTES_MAX) return 'not parsed';
    const remembered = this.#remembered.get(digest);
    if (remembered !== undefined) return remembered.contents;
    const pieces: Uint8Array[] = [];
    try {
      for await (const piece of content.read(digest)) pieces.push(piece);
    } catch (error) {
      if (hasCode(error, ErrorCodes.NotFound)) return 'gone';
      const what = "manifest unreadable, the layer's origin is unknown";
      this.#log.warn({ manifestDigest: digest, reason: messageOf(error) }, what);
      return 'unreadable';
    }
    const contents = imageIn(Buffer.concat(pieces), digest, this.#log);
    this.#remember(digest, { contents, sizeBytes });
    return contents;
  }

  #remember(digest: string, manifest: RememberedManifest): void {
    // Another call may have read it at the same time.
    if (this.#remembered.has(digest)) return;
    this.#remembered.set(digest, manifest);
    this.#rememberedBytes += manifest.sizeBytes;
    for (const [oldest, { sizeBytes }] of this.#remembered) {
      if (this.#rememberedBytes <= REMEMBERED_BYTES_MAX) return;
      this.#remembered.delete(oldest);
      this.#rememberedBytes -= sizeBytes;
    }
  }

  /** Whether the text of a manifest contains a digest. @throws {ObdError} containerd's error. */
  async #mentions(content: ContentStore, info: ContentInfo, blobDigest: string): Promise<boolean> {
    if (info.sizeBytes > SEARCHED_BYTES_MAX) return false;
    let end = '';
    for await (const piece of content.read(info.digest)) {
      const text = end + Buffer.from(piece).toString('latin1');
      if (text.includes(blobDigest)) return true;
      end = text.slice(-blobDigest.length);
    }
    return false;
  }
}

/** Each host has a label with its repositories, comma-separated. @returns undefined if none or an invalid one is set. */
function sourcesIn(labels: Labels): Source[] | undefined {
  const hosts = Object.entries(labels).filter(([key]) => key.startsWith(SOURCE_LABEL));
  const sources = hosts.flatMap(([key, repositories]) =>
    repositories
      .split(',')
      .map((repository) => ({ host: key.slice(SOURCE_LABEL.length), repository })),
  );
  const isKnown = sources.every(({ host, repository }) => isHost(host) && isRepository(repository));
  return isKnown && sources.length > 0 ? sources : undefined;
}

/** Whether content labels name this source. They have neither the port nor the brackets of an IPv6 address. */
function isListed(labels: Labels, { host, repository }: Source): boolean {
  const name = withoutPort(host).replace(/^\[(.*)\]$/, '$1');
  return labels[`${SOURCE_LABEL}${name}`]?.split(',').includes(repository) ?? false;
}

function imageIn(
  manifest: Uint8Array,
  manifestDigest: string,
  log: Log,
): KnownImage | 'not parsed' {
  try {
    const parsed = parseManifest(manifest, undefined, `manifest ${manifestDigest}`);
    const { mediaType, size: sizeBytes } = parsed.descriptor;
    const about = { digest: manifestDigest, sizeBytes, mediaType };
    if (parsed.kind !== 'image')
      return { ...about, config: undefined, annotations: {}, layers: [] };
    let chainId = '';
    const layers = parsed.manifest.layers.map((layer) => {
      chainId = chainIdOn(chainId, layer.digest);
      const { digest, mediaType, size, annotations = {} } = layer;
      return { digest, chainId, mediaType, size, annotations };
    });
    const { annotations = {}, config } = parsed.manifest;
    return { ...about, config, annotations, layers };
  } catch (error) {
    log.info(
      { manifestDigest, reason: messageOf(error) },
      'manifest malformed, searched as text instead',
    );
    return 'not parsed';
  }
}

/**
 * Finds facts about an overlaybd layer that its client does not send: by digest, the repository to fetch it from; by
 * chain ID, that it is an overlaybd layer.
 *
 *   1. The image's reference, where the client sends it as a label (`obdctl rpull`, CRI): host with port, repository. An
 *      image can make such a label too, with an annotation: it counts only if containerd's content store confirms it.
 *   2. Otherwise containerd's content store alone, in the client's namespace. The manifest that names the layer is stored
 *      before the first layer is prepared, labelled with its host and repositories. That label has lost
 *      the port; candidate-addresses.ts finds it.
 *
 * A layer is served from the registry that the client pulls from, and from no other. Lazy reads are not checked
 * against the digest, so another registry that offers the same digests could send other bytes. If the client sends a
 * reference, only its registry counts. Otherwise no registry is chosen if manifests of several registries name the layer,
 * or if a manifest that names it has no source.
 *
 * Labels may be outdated, or lead elsewhere because content labels have lost the port, and the client may have a login
 * that we have not. So the registry is asked for the blob, as obd-blockd would: a layer that obd-blockd could not read
 * gets no snapshot. If a namespace has a login, the registry must give the blob to that login and to the common one,
 * which obd-blockd has.
 *
 * The content service may be called while containerd waits for us. The snapshots service may not: garbage collection may
 * hold its locks, and wait for us too.
 *
 * Cost: one request for each layer to each address that may have it, and a pass over the namespace's manifests
 * (content-manifests.ts). A client prepares one layer after the other, and would wait for each answer in turn: so the first
 * layer of an image asks for all others too.
 */
import { ErrorCodes, hasCode, ObdError, systemCode } from '../errors.js';
import type { DescribedLayer, LayerDescription, LayerKind } from '../layers/layer-kind.js';
import type { LowerLayer } from '../layers/lower-layer.js';
import { openingParts } from '../layers/opening-parts.js';
import { LOAD_ORDER_ANNOTATION, NAME_ANNOTATION } from '../load-order/load-order-annotations.js';
import { parseBlobUrl } from '../oci/blob-url.js';
import { parseReference } from '../oci/reference.js';
import type { Credentials } from '../registry/credentials.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { type RegistryHosts, registryAddress } from '../registry/registry-hosts.js';
import { cut, msSince } from './call-log.js';
import { addressesOf, type Source } from './candidate-addresses.js';
import { ContentManifests, type KnownImage, type KnownLayer } from './content-manifests.js';
import { IMAGE_REF_LABELS, servableLayer, startLabels } from './labels.js';
import type { Log } from './log.js';
import { type ProbedBlob, type ProbingDaemon, RegistryProbes } from './registry-probes.js';
import { type Labels, remoteBlob } from './snapshot.js';
import type { Image } from './snapshot-stack.js';

/** No registry answers at such an address. A timeout or other error may pass, and proves nothing about the address. */
const UNREACHABLE: readonly (string | undefined)[] = ['ECONNREFUSED', 'ENOTFOUND'];

/** A pull prepares all layers of an image within this time, and the registry's answers are kept as long. */
const IMAGE_MS = 60_000;
/** Many times the layers that a machine pulls in a minute. */
const IMAGE_LAYERS_MAX = 4096;
/** Repositories of one layer in the log. */
const SHOWN_SOURCES_MAX = 8;

const UNKNOWN_ORIGIN: LayerOrigin = {
  registry: undefined,
  repoBlobUrl: async () => undefined,
  hasNamespaceLogin: async () => false,
};

export interface ImageLocatorDependencies {
  readonly containerdSocket: string;
  readonly hosts: RegistryHosts;
  readonly daemon: ProbingDaemon & ExpectingDaemon;
  /** The kinds of layer that devices can serve. */
  readonly kinds: readonly LayerKind[];
  /** With the same hosts, and with limits for requests that a pull waits for. */
  readonly registry: RegistryClient;
  /** For the namespaces of containerd that have logins of their own. */
  readonly namespaces: ReadonlyMap<string, NamespaceAccess>;
  readonly log: Log;
}

/** The call of obd-blockd's client that is used here. */
export interface ExpectingDaemon {
  expect(image: {
    readonly host: string;
    readonly repository: string;
    readonly manifest: string;
    readonly manifestBytes: number;
    readonly manifestType: string;
    readonly loadOrder: string;
    readonly orderNames: string[];
    /** Digests, as commandDigest() has them; empty if not known. */
    readonly command: string;
    readonly imageCommand: string;
    readonly layers: { digest: string; sizeBytes: number; root: string }[];
  }): Promise<void>;
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
  /** In an image config. */
  readonly lower: LowerLayer;
}

export function wantedLayer(chainId: string, { lower }: DescribedLayer): WantedLayer {
  const { digest, size: sizeBytes } = lower;
  return { chainId, digest, sizeBytes, lower };
}

/** The blob of a layer, and the parts that opening the layer needs. */
type WantedBlob = Pick<ProbedBlob, 'digest' | 'sizeBytes' | 'parts'>;

/** @param layers - How many the image has. */
function blobOf({ digest, sizeBytes, lower }: WantedLayer, layers: number): WantedBlob {
  return { digest, sizeBytes, parts: openingParts(lower, sizeBytes, layers) };
}

/** Where the image with a layer was pulled from. */
export interface LayerOrigin {
  /** As registryAddress() has it; undefined if it is not known, or if there are several. */
  readonly registry: string | undefined;

  /**
   * The blob URL without the layer's digest, such as `https://ghcr.io/v2/team/app/blobs`; undefined if no known
   * repository has the layer and gives it to us.
   */
  repoBlobUrl(): Promise<string | undefined>;

  /** Whether a login for this registry is configured for the client's namespace. */
  hasNamespaceLogin(): Promise<boolean>;
}

/** A client prepares the layers of an image from the bottom up. */
interface Pull {
  readonly layers: number;
  readonly untilMs: number;
  /** Layers below it were prepared. */
  next: number;
}

export class ImageLocator {
  readonly #dependencies: ImageLocatorDependencies;
  readonly #probes: RegistryProbes;
  readonly #namespaceProbes: ReadonlyMap<string, RegistryProbes>;
  readonly #manifests: ContentManifests;
  /** By namespace and chain ID, oldest first: layers whose image was asked for. */
  readonly #imageLayers = new Map<string, { readonly index: number; readonly pull: Pull }>();

  constructor(dependencies: ImageLocatorDependencies) {
    this.#dependencies = dependencies;
    this.#probes = new RegistryProbes(
      dependencies.registry,
      dependencies.hosts,
      dependencies.daemon,
    );
    this.#namespaceProbes = new Map(
      [...dependencies.namespaces].map(([name, { registry }]) => [
        name,
        new RegistryProbes(registry, dependencies.hosts),
      ]),
    );
    this.#manifests = new ContentManifests(dependencies.containerdSocket, dependencies.log);
  }

  /** Invalidates the registries' answers, for instance after logins or addresses have changed. */
  invalidate(): void {
    for (const probes of [this.#probes, ...this.#namespaceProbes.values()]) probes.invalidate();
    this.#imageLayers.clear();
  }

  /**
   * Finds the origin of a layer. Asks only containerd, and registries if a port is missing; repoBlobUrl() asks the
   * registry. A failure, such as an invalid hosts.toml, is logged as a warning and makes the origin unknown.
   */
  async origin(
    layer: WantedLayer,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<LayerOrigin> {
    const found = await this.#orUnknown(() => this.#origin(layer, labels, namespace));
    if (found === undefined) return UNKNOWN_ORIGIN;
    const { registry, repoBlobUrl, hasNamespaceLogin } = found;
    return {
      registry,
      repoBlobUrl: () => this.#orUnknown(repoBlobUrl),
      hasNamespaceLogin: async () => (await this.#orUnknown(hasNamespaceLogin)) ?? false,
    };
  }

  async #origin(
    layer: WantedLayer,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<LayerOrigin> {
    const named = await this.#referenceIn(layer, labels, namespace);
    const listed = async () => {
      if (namespace === undefined) return [];
      const ask = () => this.#manifests.sourcesOf(layer.digest, namespace);
      return (await this.#orUnknown(ask)) ?? [];
    };
    const sources =
      named === undefined ? await this.#located(await listed(), layer, namespace) : [named];
    const registries = new Set(sources.map((source) => this.#addressOf(source)));
    const shown = sources
      .slice(0, SHOWN_SOURCES_MAX)
      .map(({ host, repository }) => `${host}/${repository}`);
    const how = named === undefined ? "containerd's content store" : 'a label of the client';
    this.#dependencies.log.debug(
      { ...layer, repositories: shown, of: sources.length, from: how },
      'layer origin looked up',
    );
    const [registry] = registries;
    if (registries.size > 1) {
      const what =
        'registry ambiguous, layer is downloaded whole: images of several registries have it, and the client names none';
      this.#dependencies.log.warn({ ...layer, namespace, registries: [...registries] }, what);
    }
    const isOne = registries.size === 1;
    return {
      registry: isOne ? registry : undefined,
      repoBlobUrl: async () => {
        if (!isOne) return undefined;
        const { layers, image } = await this.#askForImage(layer, sources, namespace);
        const [only] = sources;
        const isSure = sources.length === 1 && only?.isGuess !== true;
        const { hosts } = this.#dependencies;
        // As obd-blockd will be told to read it.
        const own = only && parseBlobUrl(hosts.blobsUrlOf(only.host, only.repository));
        const expect = (address: Source | undefined) =>
          void this.#expect(image, address, labels, namespace);
        if (isSure) expect(own);
        const found = await this.#firstWithBlob(sources, blobOf(layer, layers), namespace);
        if (!isSure && found !== undefined) expect(parseBlobUrl(found));
        if (found !== undefined || named === undefined) return found;
        const same = (await listed()).filter((source) => this.#addressOf(source) === registry);
        return await this.#firstWithBlob(same, blobOf(layer, layers), namespace);
      },
      hasNamespaceLogin: async () =>
        isOne && (await this.#hasLogin(sources[0]?.host ?? '', namespace)),
    };
  }

  /**
   * Asks for the layer, whose Prepare waits, and then for the image's other layers that can be served lazily, if no layer of
   * it has done so lately.
   *
   * @returns How many layers the image has; 1 if containerd fails. The image, for the first of its layers.
   */
  async #askForImage(
    first: WantedLayer,
    sources: readonly Source[],
    namespace: string | undefined,
  ): Promise<{ readonly layers: number; readonly image?: KnownImage | undefined }> {
    if (namespace === undefined) return { layers: 1 };
    const key = (chain: string) => `${namespace} ${chain}`;
    const { index = 0, pull } = this.#imageLayers.get(key(first.chainId)) ?? {};
    // A layer that was prepared already begins another pull, with its own labels.
    if (pull !== undefined && pull.untilMs > performance.now() && index >= pull.next) {
      pull.next = index + 1;
      return { layers: pull.layers };
    }
    const find = () => this.#manifests.imageWith(first.chainId, namespace);
    const image = await this.#orUnknown(find);
    const all = image?.layers ?? [];
    const layers = Math.max(1, all.length);
    const next = all.findIndex(({ chainId }) => chainId === first.chainId) + 1;
    const begun: Pull = { layers, untilMs: performance.now() + IMAGE_MS, next };
    const askAhead = (wanted: WantedLayer) => {
      const blob = blobOf(wanted, layers);
      for (const probes of this.#readersIn(namespace)) void ask(probes, sources, blob);
    };
    askAhead(first);
    for (const [i, layer] of all.entries()) {
      this.#imageLayers.delete(key(layer.chainId));
      this.#imageLayers.set(key(layer.chainId), { index: i, pull: begun });
      const wanted = layer.digest === first.digest ? undefined : this.#lazily(layer);
      if (wanted !== undefined) askAhead(wanted);
    }
    for (const oldest of this.#imageLayers.keys()) {
      if (this.#imageLayers.size <= IMAGE_LAYERS_MAX) break;
      this.#imageLayers.delete(oldest);
    }
    return { layers, image };
  }

  /**
   * Tells the daemon what the labels of a container say of its start. Resolves before its image is attached; does nothing without
   * such labels. A pull has told the rest.
   */
  async expectStart(
    image: Image | undefined,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<void> {
    const { chainId } = image?.top ?? {};
    if (chainId === undefined || namespace === undefined || !startLabels(labels)) return;
    const remote = image?.layers.flatMap(({ layer }) => remoteBlob(layer) ?? []).at(-1);
    const known = await this.#orUnknown(() => this.#manifests.imageWith(chainId, namespace));
    await this.#expect(known, parseBlobUrl(remote?.repoBlobUrl ?? ''), labels, namespace);
  }

  /**
   * Tells the daemon of the image, if all of it can be served lazily. It is a hint, and never fails: a daemon that takes none is no
   * fault.
   */
  async #expect(
    image: KnownImage | undefined,
    address: Source | undefined,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<void> {
    if (image === undefined || address === undefined || namespace === undefined) return;
    const blocks = image.layers.map((layer) => this.#lazily(layer));
    const layers = blocks.flatMap((wanted) => {
      if (wanted === undefined) return [];
      const { digest, sizeBytes, lower } = wanted;
      return [{ digest, sizeBytes, root: lower.hashTree?.root ?? '' }];
    });
    if (layers.length === 0) return;
    const { daemon, log } = this.#dependencies;
    const { host, repository } = address;
    const { digest: manifest, sizeBytes: manifestBytes, mediaType: manifestType } = image;
    const { [LOAD_ORDER_ANNOTATION]: loadOrder = '', [NAME_ANNOTATION]: usualName = '' } =
      image.annotations;
    const { command, name } = startLabels(labels) ?? { command: '', name: '' };
    const orderNames = [name, usualName].filter((each) => each !== '');
    const about = { manifest, manifestBytes, manifestType, loadOrder, orderNames, layers };
    try {
      const imageCommand = await this.#manifests.commandOf(image, namespace);
      await daemon.expect({ host, repository, ...about, command, imageCommand });
    } catch (err) {
      log.debug({ err, manifest, host, repository }, 'daemon does not expect the image');
    }
  }

  #lazily(layer: KnownLayer): WantedLayer | undefined {
    try {
      const described = servableLayer(this.#dependencies.kinds, layer);
      return described?.holds === 'blocks' ? wantedLayer(layer.chainId, described) : undefined;
    } catch {
      // Its own Prepare logs why.
      return undefined;
    }
  }

  /** The logins that must be able to read a blob: the namespace's, if it has one, and obd-blockd's. */
  #readersIn(namespace: string | undefined): RegistryProbes[] {
    const own = this.#namespaceProbes.get(namespace ?? '');
    return own === undefined ? [this.#probes] : [own, this.#probes];
  }

  #addressOf({ host }: Source): string {
    return registryAddress(this.#dependencies.hosts.originOf(host));
  }

  async #hasLogin(host: string, namespace: string | undefined): Promise<boolean> {
    const own = this.#dependencies.namespaces.get(namespace ?? '');
    for (const name of own === undefined ? [] : this.#dependencies.hosts.loginNames(host)) {
      if ((await own?.credentials.find(name)) !== undefined) return true;
    }
    return false;
  }

  /** The source in the first label that the client, not the image, has set. */
  async #referenceIn(
    { chainId, digest: blobDigest }: WantedLayer,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<Source | undefined> {
    for (const label of IMAGE_REF_LABELS) {
      const text = labels[label];
      if (text === undefined) continue;
      const source = this.#sourceIn(label, text);
      if (source === undefined) continue;
      const claim = { label, text, source, chainId, blobDigest };
      const confirm = async () =>
        namespace !== undefined && (await this.#manifests.confirms(claim, namespace));
      if ((await this.#orUnknown(confirm)) === true) return source;
      const what =
        'label ignored: containerd has no image from its registry with this layer, or the image set the label itself';
      this.#dependencies.log.warn({ label, reference: cut(text), chainId, namespace }, what);
    }
    return undefined;
  }

  #sourceIn(label: string, text: string): Source | undefined {
    try {
      return parseReference(text);
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      this.#dependencies.log.warn(
        { err: error, label },
        'label ignored: it is not an image reference',
      );
      return undefined;
    }
  }

  /** As ContentManifests.layerOfChain(); undefined if containerd fails. */
  async layerOfChain(chainId: string, namespace: string): Promise<LayerDescription | undefined> {
    return await this.#orUnknown(() => this.#manifests.layerOfChain(chainId, namespace));
  }

  /** Logs an ObdError and returns undefined: containerd can download the layer, which takes longer. */
  async #orUnknown<T>(find: () => Promise<T | undefined>): Promise<T | undefined> {
    try {
      return await find();
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      this.#dependencies.log.warn({ err: error }, 'cannot find out where a layer is from');
      return undefined;
    }
  }

  /**
   * The sources with the ports that content labels have lost. If a name may stand for several addresses, all are asked and
   * those without the blob are dropped. Addresses that leave it open (a refused login, an error, a timeout) are returned
   * too. If all are dropped, the first is returned.
   */
  async #located(
    sources: readonly Source[],
    layer: WantedLayer,
    namespace: string | undefined,
  ): Promise<Source[]> {
    const { hosts, containerdSocket } = this.#dependencies;
    const located = sources.map(async (source) => {
      const addresses = await addressesOf(source, hosts, containerdSocket, namespace ?? '');
      if (addresses.length === 1) return addresses;
      const [probes = this.#probes] = this.#readersIn(namespace);
      const outcomes = await Promise.all(ask(probes, addresses, blobOf(layer, 1)));
      const meant = addresses.filter((_, i) => !isAbsent(outcomes[i]?.error));
      return meant.length > 0 ? meant : addresses.slice(0, 1);
    });
    return (await Promise.all(located)).flat();
  }

  /** The URL of the first source that gives the blob to every reader's login. All are asked at once. */
  async #firstWithBlob(
    sources: readonly Source[],
    layer: WantedBlob,
    namespace: string | undefined,
  ): Promise<string | undefined> {
    const { hosts, log } = this.#dependencies;
    const { digest, sizeBytes: annotated } = layer;
    const startedMs = performance.now();
    const asked = this.#readersIn(namespace).map((probes) => ask(probes, sources, layer));
    for (const [i, { host, repository }] of sources.entries()) {
      const answers = await Promise.all(asked.map((each) => each[i]));
      const error = answers.find((answer) => answer?.error !== undefined)?.error;
      const sizes = answers.map((answer) => answer?.sizeBytes ?? annotated);
      const sizeBytes = sizes.find((size) => size !== annotated) ?? annotated;
      if (hasCode(error, ErrorCodes.Corrupt)) {
        const what = 'repository skipped: its blob has another hash tree than the image says';
        log.warn({ err: error, digest, host, repository }, what);
      } else if (error !== undefined) {
        const what =
          'repository skipped: it must give the blob to the login of docker_config, which obd-blockd has too, and to the one of the namespace; hosts_dir says how to reach it';
        log.warn({ err: error, digest, host, repository }, what);
      } else if (sizeBytes !== annotated) {
        const found = { digest, host, repository, sizeBytes, annotated };
        log.warn(found, 'repository skipped: its blob has another size than the image says');
      } else {
        const found = { digest, host, repository, sizeBytes, ms: msSince(startedMs) };
        log.debug(found, 'registry gives the blob');
        return hosts.blobsUrlOf(host, repository);
      }
    }
    return undefined;
  }
}

/** Never rejects: each answer is a size, undefined if the registry does not say, or an error. */
function ask(
  probes: RegistryProbes,
  sources: readonly Source[],
  blob: WantedBlob,
): Promise<{ readonly sizeBytes?: number | undefined; readonly error?: unknown }>[] {
  return sources.map(({ host, repository, isGuess = false }) =>
    probes.ask({ ...blob, host, repository }, isGuess).catch((error: unknown) => ({ error })),
  );
}

/** Whether the registry does not have the blob, or there is no registry. */
function isAbsent(error: unknown): boolean {
  if (hasCode(error, ErrorCodes.NotFound)) return true;
  for (let at = error; at instanceof Error; at = at.cause) {
    if (UNREACHABLE.includes(systemCode(at))) return true;
  }
  return false;
}

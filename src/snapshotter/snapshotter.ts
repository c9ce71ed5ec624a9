/**
 * Implements the calls of containerd.services.snapshots.v1 on the store, the directories and the images' mounts.
 *
 * Order of writes, so that after a kill at any time open() finds only state that it can complete or remove:
 *
 *   Prepare, View   directory (made aside, synced, renamed), record, then device and mount of the image below. If those
 *                   fail, record and directory go again.
 *   remote layer    directory, record. It holds no bytes, so its directory can be made again from the record.
 *   Commit          the record alone; the directory stays where it is.
 *   Remove          record, mount, device, directory. If one of the last three cannot be removed now, it is orphaned and
 *                   removed later, so Remove works while obd-blockd does not run.
 *
 * A directory, mount or device without a record is thus orphaned, except while its Prepare is in flight.
 *
 * A layer is served lazily only if its chain ID is proved (layer-identity.ts), and an existing one
 * only to a pull from the same registry (layer-sharing.ts). containerd downloads and checks all other layers.
 */
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import type { DescribedLayer, LayerDescription, LayerKind } from '../layers/layer-kind.js';
import { cut, logged, msSince } from './call-log.js';
import type { Filter } from './filter.js';
import { type LayerOrigin, type WantedLayer, wantedLayer } from './image-locator.js';
import { type Devices, ImageMounts } from './image-mounts.js';
import { KeyedMutex } from './keyed-mutex.js';
import { imageLayerOf, REF_LABEL, SERVED_LABEL, servableLayer } from './labels.js';
import {
  chainIdIn,
  chainIdToUnpack,
  checkServable,
  expectsRebase,
  identityProblem,
  rebaseRefused,
  refusal,
} from './layer-identity.js';
import { LayerSharing } from './layer-sharing.js';
import type { Log } from './log.js';
import { mountableImage } from './mountable-image.js';
import { bindMount, hostOverlayOptions, type Mount, mountsOf } from './overlay-mounts.js';
import { fieldOf, shown } from './shown-snapshot.js';
import {
  type ImageLayer,
  isBlockLayer,
  isUnproved,
  type Kind,
  type Labels,
  type Layer,
  remoteBlob,
  type Snapshot,
  type Usage,
} from './snapshot.js';
import { isUnfinished, SnapshotDirectories, snapshotIdIn } from './snapshot-directories.js';
import {
  blocksOnFiles,
  checkOneRegistry,
  type Image,
  type SnapshotStack,
  servedAs,
  servedBy,
  stackOf,
} from './snapshot-stack.js';
import { alreadyExists, type NewSnapshot, SnapshotStore } from './snapshot-store.js';
import { committedLayer, UNDESCRIBED } from './unpacked-layer.js';

/** Where a layer can be fetched from, and what its image says of it. */
export interface Locator {
  /** Undefined for a plain layer, and for one that no manifest in containerd names. */
  layerOfChain(chainId: string, namespace: string): Promise<LayerDescription | undefined>;
  origin(layer: WantedLayer, labels: Labels, namespace: string | undefined): Promise<LayerOrigin>;
  /** Called before the image of a new container is attached. Never fails. */
  expectStart(image: Image | undefined, labels: Labels, namespace?: string): Promise<void>;
}

export interface SnapshotRequest {
  readonly key: string;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: Labels;
  /** The client's containerd namespace. */
  readonly namespace: string | undefined;
}

export interface SnapshotterDependencies {
  readonly root: string;
  /** The kinds of layer that devices can serve. */
  readonly kinds: readonly LayerKind[];
  readonly devices: Devices;
  readonly locator: Locator;
  /** Whether a layer that one namespace has pulled is served lazily to the others, which then need no login. */
  readonly shareBetweenNamespaces: boolean;
  readonly log: Log;
}

export class Snapshotter {
  readonly #store: SnapshotStore;
  readonly #directories: SnapshotDirectories;
  readonly #images: ImageMounts;
  readonly #locator: Locator;
  readonly #sharing: LayerSharing;
  /** By chain ID: of concurrent pulls, the first records the layer and the others find it. */
  readonly #layerLocks = new KeyedMutex<string>();
  readonly #kinds: readonly LayerKind[];
  readonly #log: Log;
  readonly #overlayOptions = hostOverlayOptions();
  /** Directories whose records are being written, so they are not orphaned. */
  readonly #making = new Set<number>();

  private constructor(
    store: SnapshotStore,
    directories: SnapshotDirectories,
    { kinds, devices, locator, shareBetweenNamespaces, log }: SnapshotterDependencies,
  ) {
    this.#store = store;
    this.#directories = directories;
    const isKnown = (id: number) => this.#store.hasId(id);
    this.#images = new ImageMounts(directories, devices, isKnown, log);
    this.#kinds = kinds;
    this.#locator = locator;
    this.#sharing = new LayerSharing(store, shareBetweenNamespaces);
    this.#log = log;
  }

  /**
   * Opens the store under `root` and cleans up: see cleanup(). It reports and skips an unreadable record, and
   * an obd-blockd that does not run yet.
   *
   * @throws {ObdError} `Busy` if another process has it open, `Corrupt` or `Unsupported` for its database, `Io`.
   */
  static async open(dependencies: SnapshotterDependencies): Promise<Snapshotter> {
    const directories = await SnapshotDirectories.open(dependencies.root);
    const store = SnapshotStore.open(`${dependencies.root}/snapshots.db`);
    try {
      const snapshotter = new Snapshotter(store, directories, dependencies);
      await snapshotter.#reconcile();
      return snapshotter;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /**
   * Makes a writable snapshot. For an overlaybd layer that is about to be unpacked and can be fetched lazily, makes the
   * layer itself: then the answer is `AlreadyExists`, and the client does not download it.
   *
   * @throws {ObdError} `AlreadyExists`, `NotFound`, `InvalidArgument`, errors of mounting the image below.
   */
  async prepare(request: SnapshotRequest): Promise<Mount[]> {
    return await logged(this.#log, 'prepare', request, () => this.#prepare(request));
  }

  async #prepare(request: SnapshotRequest): Promise<Mount[]> {
    const { parent, labels } = request;
    const ref = labels[REF_LABEL] || undefined;
    if (ref !== undefined && expectsRebase(ref, parent, labels)) throw rebaseRefused(ref);
    let described: DescribedLayer | undefined;
    try {
      if (ref !== undefined) described = servableLayer(this.#kinds, { annotations: labels });
    } catch (error) {
      // A download of an unsupported kind would be unpacked as a directory of metadata.
      if (!hasCode(error, ErrorCodes.InvalidArgument)) throw error;
      const what = 'layer annotations unusable, containerd downloads it';
      this.#log.warn({ err: error, ref, namespace: request.namespace }, what);
      return await this.#createUnproved(request, UNDESCRIBED, { type: 'files' });
    }
    if (ref !== undefined && described !== undefined) {
      return await this.#prepareLayer(request, ref, described);
    }
    return await this.#create('active', request, await this.#layerToUnpack(request));
  }

  async view(request: SnapshotRequest): Promise<Mount[]> {
    const view = () => this.#create('view', request, { type: 'files' });
    return await logged(this.#log, 'view', request, view);
  }

  /**
   * Also mounts the image below again, for instance after a reboot. A container that an earlier version made on an
   * unproved layer can be started again: only new ones are refused.
   *
   * @throws {ObdError} `NotFound`, `FailedPrecondition`; errors of mounting the image.
   */
  async mounts(key: string): Promise<Mount[]> {
    const snapshot = this.#store.get(key);
    if (snapshot.kind === 'committed') {
      const found = `snapshot "${key}" is committed: a view of it can be mounted, or a snapshot on it`;
      throw new ObdError(ErrorCodes.FailedPrecondition, found);
    }
    const ancestors = this.#store.ancestors(key);
    const unproved = ancestors.find(isUnproved);
    if (unproved !== undefined) {
      const what = 'existing container served from an unproved layer';
      this.#log.warn({ key, layer: unproved.name, err: refusal(unproved) }, what);
    }
    return await this.#mountsOf(snapshot, stackOf(ancestors));
  }

  /** @throws {ObdError} `NotFound`, `AlreadyExists`, `FailedPrecondition`. */
  async commit(name: string, key: string, labels: Labels): Promise<void> {
    if (name === '') throw new ObdError(ErrorCodes.InvalidArgument, 'a snapshot needs a name');
    const snapshot = this.#store.get(key);
    if (snapshot.kind !== 'active') {
      const found = `snapshot "${key}" is ${snapshot.kind}, and only an active one can be committed`;
      throw new ObdError(ErrorCodes.FailedPrecondition, found);
    }
    const stack = stackOf(this.#store.ancestors(key));
    const layer = await committedLayer(snapshot, this.#directories.files(snapshot.id), this.#kinds);
    const [plain] = stack.files;
    if (layer.type === 'blocks' && plain !== undefined) throw blocksOnFiles(key, plain.name);
    const usage = await this.#directories.usage(snapshot.id);
    const all = { ...labels, [SERVED_LABEL]: servedAs(layer) };
    // If the name has the chain ID announced at Prepare, containerd has checked the diff ID before this Commit.
    const { chainId = '' } = snapshot;
    const isChecked = chainId !== '' && isBlockLayer(layer) && name.endsWith(chainId);
    this.#store.commit(key, name, all, usage, layer, isChecked ? chainId : undefined);
    // While an image is unpacked layer by layer, each layer was the top and mounted for a while.
    const below = stack.image?.top.id;
    if (below !== undefined && !this.#store.isInUse(below)) {
      this.#images.releaseLater(below, () => this.#store.isInUse(below));
    }
  }

  /** @throws {ObdError} `NotFound`, `FailedPrecondition` while something stands on it. */
  async remove(key: string): Promise<void> {
    const id = this.#store.remove(key);
    // Checked under the image's lock: a Prepare may be making it concurrently.
    await this.#images.release(id, async () => !(await this.#directories.hasBlock(id)));
    await this.#removeDirectory(id);
  }

  /** @throws {ObdError} `NotFound`. */
  stat(key: string): Snapshot {
    return shown(this.#store.get(key));
  }

  /** @throws {ObdError} `NotFound`. */
  setLabels(key: string, change: (labels: Labels) => Labels): Snapshot {
    return shown(this.#store.setLabels(key, change));
  }

  list(filter: Filter): Snapshot[] {
    const all = this.#store.list((err) =>
      this.#log.error({ err }, 'snapshot record unusable, skipped'),
    );
    return all.map(shown).filter((snapshot) => filter((path) => fieldOf(snapshot, path)));
  }

  /** The disk usage of the snapshot alone, without its parents. @throws {ObdError} `NotFound`. */
  async usage(key: string): Promise<Usage> {
    const { id, kind, usage } = this.#store.get(key);
    return kind === 'active' ? await this.#directories.usage(id) : usage;
  }

  /** Removes directories, mounts and devices of removed snapshots. Never throws: it logs failures. */
  async cleanup(): Promise<void> {
    await this.#images.sweep();
    for (const name of await this.#directories.names()) {
      const id = snapshotIdIn(name);
      const isOrphaned = id !== undefined && !this.#store.hasId(id) && !this.#making.has(id);
      if (isOrphaned) await this.#removeDirectory(id);
    }
  }

  /** Mounts and devices stay, as containers use them. Idempotent. */
  close(): void {
    this.#images.close();
    this.#store.close();
  }

  /** Serves an overlaybd layer lazily if it is proved and its registry is known; otherwise containerd unpacks it. */
  async #prepareLayer(
    request: SnapshotRequest,
    ref: string,
    described: DescribedLayer,
  ): Promise<Mount[]> {
    const { key, parent, labels, namespace } = request;
    if (this.#store.has(key)) throw alreadyExists(key);
    const below = parent === '' ? undefined : this.#store.get(parent);
    if (below !== undefined && !isBlockLayer(below.layer)) throw blocksOnFiles(ref, parent);
    const { digest } = described.lower;
    const problem = identityProblem({ ref, digest, labels, below });
    if (problem !== undefined) {
      if (below === undefined && (await this.#isStacked(ref, digest, namespace))) {
        throw rebaseRefused(ref);
      }
      const what = 'layer identity not proved, containerd downloads it';
      this.#log.warn({ ref, digest, namespace, problem }, what);
      const layer = imageLayerOf(described);
      if (described.holds === 'trace') {
        return await this.#create('active', request, { type: 'files', announces: layer });
      }
      return await this.#createUnproved(request, layer);
    }
    this.#log.debug({ ref, digest, holds: described.holds }, 'chain ID proved');
    // Only the content tells a trace from a layer, so containerd downloads and checks it.
    if (described.holds === 'trace') {
      const announces = await this.#withRepository(request, ref, described);
      return await this.#create('active', request, { type: 'files', announces });
    }
    return await this.#layerLocks.withLock(ref, () => this.#prepareProved(request, ref, described));
  }

  /**
   * Makes a snapshot to unpack a layer whose annotations may be wrong. A plain layer needs the image below; an overlaybd
   * layer is unpacked without it if it cannot be mounted.
   */
  async #createUnproved(request: SnapshotRequest, layer: ImageLayer, as?: Layer): Promise<Mount[]> {
    try {
      return await this.#create('active', request, as ?? (await this.#layerToUnpack(request)));
    } catch (error) {
      if (!(error instanceof ObdError) || request.parent === '') throw error;
      this.#log.warn({ key: request.key, err: error }, 'unpacking a layer without its image below');
      return await this.#create('active', request, { type: 'download', ...layer });
    }
  }

  /** A trace is unpacked, not fetched on read: whether its repository is known changes nothing now. */
  async #withRepository(
    { labels, namespace }: SnapshotRequest,
    ref: string,
    described: DescribedLayer,
  ): Promise<ImageLayer> {
    const wanted = wantedLayer(ref, described);
    const origin = await this.#locator.origin(wanted, labels, namespace);
    const repoBlobUrl = await origin.repoBlobUrl();
    const layer = imageLayerOf(described);
    return repoBlobUrl === undefined ? layer : { ...layer, lower: { ...layer.lower, repoBlobUrl } };
  }

  async #prepareProved(
    request: SnapshotRequest,
    ref: string,
    described: DescribedLayer,
  ): Promise<Mount[]> {
    const { key, parent, labels, namespace } = request;
    const { lower, fileSystem } = imageLayerOf(described);
    const { digest } = lower;
    const wanted = wantedLayer(ref, described);
    const startedMs = performance.now();
    const origin = await this.#locator.origin(wanted, labels, namespace);
    const known = this.#store.committedWithLabel(parent, REF_LABEL, ref);
    const decision = await this.#sharing.decide(known, wanted, origin, namespace);
    const found = { registry: origin.registry, known: known.length, ms: msSince(startedMs) };
    const [[outcome, detail] = []] = Object.entries(decision);
    this.#log.debug({ ref, digest, outcome, detail: cut(detail), ...found }, 'layer decision made');
    if ('existing' in decision) throw alreadyExists(decision.existing);
    if ('download' in decision) {
      const { download: reason } = decision;
      const what = 'layer not served lazily, containerd downloads it';
      this.#log.warn({ ref, digest, namespace, reason }, what);
      return await this.#create('active', request, { type: 'download', lower, fileSystem });
    }
    const { repoBlobUrl } = decision;
    const layer: Layer = { type: 'blocks', lower: { ...lower, repoBlobUrl }, fileSystem };
    // The name is taken only if a layer was downloaded in another namespace and has another parent.
    const name = this.#store.has(ref) ? `${ref} ${key}` : ref;
    const all = { ...labels, [SERVED_LABEL]: servedAs(layer) };
    const snapshot = { name, kind: 'committed', parent, labels: all, layer, chainId: ref } as const;
    await this.#record({ ...snapshot, namespaces: namespacesOf(namespace) }, undefined);
    this.#log.info({ ref, digest, repoBlobUrl }, 'layer served lazily');
    throw alreadyExists(name);
  }

  /** Whether an image in containerd's content store has this layer on top of others. */
  async #isStacked(ref: string, digest: string, namespace: string | undefined): Promise<boolean> {
    if (namespace === undefined) return false;
    const described = await this.#layerOfChain(ref, namespace);
    return described !== undefined && described.lower.digest === digest;
  }

  /**
   * The layer type of a snapshot that a client asks for without labels. The blob of an overlaybd layer, downloaded
   * as a whole, is one file: unpacking it on an image needs no attached and mounted image.
   */
  async #layerToUnpack({ key, parent, namespace }: SnapshotRequest): Promise<Layer> {
    const chainId = chainIdIn(key);
    const onImage = parent !== '' && isBlockLayer(this.#store.get(parent).layer);
    if (chainId === undefined || namespace === undefined || !onImage) return { type: 'files' };
    const described = await this.#layerOfChain(chainId, namespace);
    if (described?.holds !== 'blocks') return { type: 'files' };
    return { type: 'download', ...imageLayerOf(described) };
  }

  /** Logs why a layer cannot be served, and returns undefined: containerd unpacks it as a plain one. */
  async #layerOfChain(chainId: string, namespace: string): Promise<DescribedLayer | undefined> {
    const description = await this.#locator.layerOfChain(chainId, namespace);
    if (description === undefined) return undefined;
    try {
      return servableLayer(this.#kinds, description);
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      this.#log.warn({ err: error, chainId, namespace }, 'layer unfit to be served as blocks');
      return undefined;
    }
  }

  async #create(kind: Kind, request: SnapshotRequest, layer: Layer): Promise<Mount[]> {
    const { key, parent, labels, namespace } = request;
    if (key === '') throw new ObdError(ErrorCodes.InvalidArgument, 'a snapshot needs a key');
    if (this.#store.has(key)) throw alreadyExists(key);
    const chain = parent === '' ? [] : [this.#store.get(parent), ...this.#store.ancestors(parent)];
    checkServable(chain);
    const stack = stackOf(chain);
    if (layer.type !== 'download') checkOneRegistry(stack);
    const like = stack.files[0];
    const all = { ...labels, [SERVED_LABEL]: servedBy(stack) };
    const root = like === undefined ? undefined : this.#directories.files(like.id);
    const chainId = chainIdToUnpack(key, labels, chain[0]);
    const namespaces = namespacesOf(namespace);
    const snapshot = { name: key, kind, parent, labels: all, layer, chainId, namespaces };
    const id = await this.#record(snapshot, root);
    const below = { image: cut(stack.image?.top.name), files: stack.files.length };
    const made = { key: cut(key), snapshotId: id, kind, type: layer.type, below };
    this.#log.debug(made, 'snapshot recorded');
    try {
      await this.#locator.expectStart(stack.image, labels, namespace);
      const mounts = await this.#mountsOf(this.#store.get(key), stack);
      if (stack.image !== undefined && like === undefined && layer.type === 'files') {
        await this.#directories.setRootLike(id, this.#directories.mountPoint(stack.image.top.id));
      }
      return mounts;
    } catch (error) {
      this.#store.remove(key);
      await this.#removeDirectory(id);
      throw error;
    }
  }

  /** Directory and record of a new snapshot: both, or neither. */
  async #record(snapshot: Omit<NewSnapshot, 'id'>, root: string | undefined): Promise<number> {
    const id = this.#store.nextId();
    this.#making.add(id);
    try {
      await this.#directories.create(id, snapshot.kind, root);
      this.#store.insert({ ...snapshot, id });
      return id;
    } catch (error) {
      await this.#removeDirectory(id);
      throw error;
    } finally {
      this.#making.delete(id);
    }
  }

  async #mountsOf(snapshot: Snapshot, stack: SnapshotStack): Promise<Mount[]> {
    const files = this.#directories.files(snapshot.id);
    if (snapshot.layer.type === 'download') return [bindMount(files, 'rw')];
    const lowers = stack.files.map(({ id }) => this.#directories.files(id));
    if (stack.image !== undefined) {
      const filesOf = (id: number) => this.#directories.files(id);
      lowers.push(await this.#images.ensure(mountableImage(stack.image, filesOf)));
    }
    const places = { files, work: this.#directories.work(snapshot.id), lowers };
    return mountsOf(snapshot.kind, places, this.#overlayOptions);
  }

  async #removeDirectory(name: number | string): Promise<void> {
    try {
      await this.#directories.remove(name);
    } catch (error) {
      this.#log.warn({ directory: name, err: error }, 'directory not removed, will retry');
    }
  }

  async #reconcile(): Promise<void> {
    const names = await this.#directories.names();
    for (const name of names) if (isUnfinished(name)) await this.#removeDirectory(name);
    const present = new Set(names.map(snapshotIdIn));
    for (const id of present) this.#store.reserveIdsUpTo(id ?? 0);
    await this.cleanup();
    for (const snapshot of this.list(() => true)) {
      const { id, name, layer } = snapshot;
      if (isUnproved(snapshot)) {
        const what = 'unproved layer of an earlier version, refused to new containers';
        this.#log.error({ snapshotId: id, name, err: refusal(snapshot) }, what);
      }
      if (present.has(id)) continue;
      const isEmpty = layer.type === 'trace' || remoteBlob(layer) !== undefined;
      const problem = isEmpty ? await this.#remade(id) : 'remove the snapshot';
      if (problem === undefined) continue;
      this.#log.error({ snapshotId: id, name, problem }, 'snapshot directory missing');
    }
  }

  /** Makes the directory of a snapshot without bytes; returns why it cannot. */
  async #remade(id: number): Promise<string | undefined> {
    try {
      await this.#directories.create(id, 'committed', undefined);
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }
}

function namespacesOf(namespace: string | undefined): string[] {
  return namespace === undefined ? [] : [namespace];
}

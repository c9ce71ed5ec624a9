/**
 * The snapshotter itself: what each call of containerd.services.snapshots.v1 does to the store, the directories and the
 * images' mounts.
 *
 * Order of writes, so that whatever is killed when, start() finds either nothing or what can be completed or removed:
 *
 *   Prepare, View   directory (made aside, synced, renamed), record, then device and mount of the image below. If those
 *                   fail, record and directory go again.
 *   remote layer    directory, record. It holds no bytes, so its directory can be made again from the record.
 *   Commit          the record alone; the directory stays where it is.
 *   Remove          record, mount, device, directory. What of the last three cannot go now is debris and goes later,
 *                   so Remove works while obd-blockd does not run.
 *
 * A directory, mount or device without a record is thus debris at any time but while its Prepare is under way.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { ImageConfig } from '../image/image-config.js';
import type { Filter } from './filter.js';
import { DEFAULT_FILE_SYSTEM } from './image-mount.js';
import { type Devices, ImageMounts, type MountableImage } from './image-mounts.js';
import { type OverlaybdBlob, overlaybdBlobOf, REF_LABEL, SERVED_LABEL } from './labels.js';
import { holdsOverlaybdLayer, LAYER_FILE } from './local-layer.js';
import type { Log } from './log.js';
import { bindMount, hostOverlayOptions, type Mount, mountsOf } from './overlay-mounts.js';
import {
  isBlockLayer,
  type Kind,
  type Labels,
  type Layer,
  type Snapshot,
  type Usage,
} from './snapshot.js';
import { isUnfinished, SnapshotDirectories, snapshotIdIn } from './snapshot-directories.js';
import {
  blocksOnFiles,
  type Image,
  type SnapshotStack,
  servedAs,
  servedBy,
  stackOf,
} from './snapshot-stack.js';
import { SnapshotStore } from './snapshot-store.js';

/** The key under which containerd's clients unpack a layer ends in its chain ID. */
const UNPACKING_KEY = /(?:^|\/)extract-\S+ (sha256:[0-9a-f]{64})$/;

/** Where a layer can be fetched from, and whether it is an overlaybd layer. */
export interface Locator {
  blobOfChain(chainId: string, namespace: string): Promise<OverlaybdBlob | undefined>;
  repoBlobUrl(
    digest: string,
    labels: Labels,
    namespace: string | undefined,
  ): Promise<string | undefined>;
}

export interface SnapshotRequest {
  readonly key: string;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: Labels;
  /** containerd's, of the client. */
  readonly namespace: string | undefined;
}

export interface SnapshotterParts {
  readonly root: string;
  readonly devices: Devices;
  readonly locator: Locator;
  readonly log: Log;
}

export class Snapshotter {
  readonly #store: SnapshotStore;
  readonly #directories: SnapshotDirectories;
  readonly #images: ImageMounts;
  readonly #locator: Locator;
  readonly #log: Log;
  readonly #overlayOptions = hostOverlayOptions();
  /** Directories whose records are being written: not debris. */
  readonly #making = new Set<number>();

  private constructor(
    store: SnapshotStore,
    directories: SnapshotDirectories,
    { devices, locator, log }: SnapshotterParts,
  ) {
    this.#store = store;
    this.#directories = directories;
    const isKnown = (id: number) => this.#store.hasId(id);
    this.#images = new ImageMounts(directories, devices, isKnown, log);
    this.#locator = locator;
    this.#log = log;
  }

  /**
   * Opens what is under `root` and sets it in order: see cleanup(). One record that cannot be read is reported and left
   * alone, and so is obd-blockd if it does not run yet.
   *
   * @throws {ObdError} `Busy` if another process has it open, `Corrupt` or `Unsupported` for its database, `Io`.
   */
  static async open(parts: SnapshotterParts): Promise<Snapshotter> {
    const directories = await SnapshotDirectories.open(parts.root);
    const store = SnapshotStore.open(`${parts.root}/snapshots.db`);
    try {
      const snapshotter = new Snapshotter(store, directories, parts);
      await snapshotter.#reconcile();
      return snapshotter;
    } catch (error) {
      store.close();
      throw error;
    }
  }

  /**
   * Makes a writable snapshot, or, for an overlaybd layer that is about to be unpacked and can be fetched lazily, the layer
   * itself: then the answer is `AlreadyExists`, and the client does not download it.
   *
   * @throws {ObdError} `AlreadyExists`, `NotFound`, `InvalidArgument`, what mounting the image below throws.
   */
  async prepare(request: SnapshotRequest): Promise<Mount[]> {
    const ref = request.labels[REF_LABEL] || undefined;
    const blob = ref === undefined ? undefined : overlaybdBlobOf(request.labels);
    if (ref !== undefined && blob !== undefined) {
      return await this.#prepareLayer(request, ref, blob);
    }
    return await this.#create('active', request, await this.#layerToUnpack(request));
  }

  async view(request: SnapshotRequest): Promise<Mount[]> {
    return await this.#create('view', request, { type: 'files' });
  }

  /** Also mounts the image below again, after a reboot or the like. @throws {ObdError} `NotFound`, `FailedPrecondition`. */
  async mounts(key: string): Promise<Mount[]> {
    const snapshot = this.#store.get(key);
    if (snapshot.kind === 'committed') {
      const found = `snapshot "${key}" is committed: a view of it can be mounted, or a snapshot on it`;
      throw new ObdError(ErrorCodes.FailedPrecondition, found);
    }
    return await this.#mountsOf(snapshot, stackOf(this.#store.ancestors(key)));
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
    const layer = await this.#unpackedLayer(snapshot, stack);
    const usage = await this.#directories.usage(snapshot.id);
    this.#store.commit(key, name, { ...labels, [SERVED_LABEL]: servedAs(layer) }, usage, layer);
    // While an image is unpacked layer by layer, each has been the top for a while.
    const below = stack.image?.top.id;
    if (below !== undefined && !this.#store.isInUse(below)) {
      await this.#images.release(below, () => this.#store.isInUse(below));
    }
  }

  /** @throws {ObdError} `NotFound`, `FailedPrecondition` while something stands on it. */
  async remove(key: string): Promise<void> {
    const id = this.#store.remove(key);
    // Looked at in the image's turn: a Prepare may be making it at this moment.
    await this.#images.release(id, async () => !(await this.#directories.hasBlock(id)));
    await this.#removeDirectory(id);
  }

  /** @throws {ObdError} `NotFound`. */
  stat(key: string): Snapshot {
    return this.#store.get(key);
  }

  /** @throws {ObdError} `NotFound`. */
  setLabels(key: string, change: (labels: Labels) => Labels): Snapshot {
    return this.#store.setLabels(key, change);
  }

  list(filter: Filter): Snapshot[] {
    const all = this.#store.list((err) => this.#log.error({ err }, 'passing over a snapshot'));
    return all.filter((snapshot) => filter((path) => fieldOf(snapshot, path)));
  }

  /** What the snapshot itself takes on the disk, without its parents. @throws {ObdError} `NotFound`. */
  async usage(key: string): Promise<Usage> {
    const { id, kind, usage } = this.#store.get(key);
    return kind === 'active' ? await this.#directories.usage(id) : usage;
  }

  /** Removes directories, mounts and devices of snapshots that are no more. Never throws: it reports. */
  async cleanup(): Promise<void> {
    await this.#images.sweep();
    for (const name of await this.#directories.names()) {
      const id = snapshotIdIn(name);
      const isDebris = id !== undefined && !this.#store.hasId(id) && !this.#making.has(id);
      if (isDebris) await this.#removeDirectory(id);
    }
  }

  /** Mounts and devices stay, as containers use them. Idempotent. */
  close(): void {
    this.#images.close();
    this.#store.close();
  }

  /** A layer of an overlaybd image: lazily if we know where it is, or as a place for containerd to unpack its blob in. */
  async #prepareLayer(
    request: SnapshotRequest,
    ref: string,
    blob: OverlaybdBlob,
  ): Promise<Mount[]> {
    const { key, parent, labels, namespace } = request;
    if (this.#store.has(key)) throw alreadyExists(key);
    const existing = this.#store.committedWithLabel(parent, REF_LABEL, ref);
    if (existing !== undefined && isBlockLayer(existing.layer)) throw alreadyExists(existing.name);
    const below = parent === '' ? undefined : this.#store.get(parent);
    if (below !== undefined && !isBlockLayer(below.layer)) throw blocksOnFiles(ref, parent);
    const { digest, sizeBytes, fileSystem } = blob;
    const repoBlobUrl = await this.#locator.repoBlobUrl(digest, labels, namespace);
    if (repoBlobUrl === undefined) {
      const what = 'the registry of an overlaybd layer is not known: it is downloaded as a whole';
      this.#log.warn({ ref, digest, namespace }, what);
      return await this.#create('active', request, { type: 'download', fileSystem });
    }
    const layer: Layer = blob.isTrace
      ? { type: 'trace' }
      : { type: 'remote', digest, sizeBytes, repoBlobUrl, fileSystem };
    // The name is free, but for a layer that was downloaded in another namespace and stands on another parent.
    const name = this.#store.has(ref) ? `${ref} ${key}` : ref;
    const all = { ...labels, [SERVED_LABEL]: servedAs(layer) };
    await this.#record(name, 'committed', parent, all, layer, undefined);
    this.#log.info({ ref, digest, repoBlobUrl }, 'a layer is served lazily');
    throw alreadyExists(name);
  }

  /**
   * What a snapshot that a client asks for without saying more is going to be. The blob of an overlaybd layer, downloaded
   * as a whole, is one file: to unpack it on an image, that need not be attached and mounted.
   */
  async #layerToUnpack({ key, parent, namespace }: SnapshotRequest): Promise<Layer> {
    const chainId = UNPACKING_KEY.exec(key)?.[1];
    const onImage = parent !== '' && isBlockLayer(this.#store.get(parent).layer);
    if (chainId === undefined || namespace === undefined || !onImage) return { type: 'files' };
    const blob = await this.#locator.blobOfChain(chainId, namespace);
    if (blob === undefined || blob.isTrace) return { type: 'files' };
    return { type: 'download', fileSystem: blob.fileSystem };
  }

  async #create(kind: Kind, request: SnapshotRequest, layer: Layer): Promise<Mount[]> {
    const { key, parent, labels } = request;
    if (key === '') throw new ObdError(ErrorCodes.InvalidArgument, 'a snapshot needs a key');
    if (this.#store.has(key)) throw alreadyExists(key);
    const chain = parent === '' ? [] : [this.#store.get(parent), ...this.#store.ancestors(parent)];
    const stack = stackOf(chain);
    const like = stack.files[0];
    const all = { ...labels, [SERVED_LABEL]: servedBy(stack) };
    const root = like === undefined ? undefined : this.#directories.files(like.id);
    const id = await this.#record(key, kind, parent, all, layer, root);
    try {
      const snapshot = this.#store.get(key);
      const mounts = await this.#mountsOf(snapshot, stack);
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
  async #record(
    name: string,
    kind: Kind,
    parent: string,
    labels: Labels,
    layer: Layer,
    root: string | undefined,
  ): Promise<number> {
    const id = this.#store.nextId();
    this.#making.add(id);
    try {
      await this.#directories.create(id, kind, root);
      this.#store.insert({ id, name, parent, kind, labels, layer });
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
      lowers.push(await this.#images.ensure(this.#mountable(stack.image)));
    }
    const places = { files, work: this.#directories.work(snapshot.id), lowers };
    return mountsOf(snapshot.kind, places, this.#overlayOptions);
  }

  #mountable({ top, layers }: Image): MountableImage {
    const lowers: ImageConfig['lowers'][number][] = [];
    let repoBlobUrl = '';
    let fileSystem = DEFAULT_FILE_SYSTEM;
    for (const { id, layer } of layers) {
      if (layer.type === 'remote') {
        // The topmost one's: its image has all layers below it in the same repository.
        repoBlobUrl = layer.repoBlobUrl;
        lowers.push({ digest: layer.digest, size: layer.sizeBytes });
      } else if (layer.type === 'local') {
        lowers.push({ file: `${this.#directories.files(id)}/${LAYER_FILE}` });
      }
      if (layer.type === 'remote' || layer.type === 'local') fileSystem = layer.fileSystem;
    }
    const from = repoBlobUrl === '' ? '' : ` from ${repoBlobUrl.replace(/\/blobs$/, '')}`;
    const description = `the image with top layer "${top.name}" (${lowers.length} layers${from})`;
    return { id: top.id, config: { repoBlobUrl, lowers }, fileSystem, description };
  }

  /** What has been unpacked or written in an active snapshot. */
  async #unpackedLayer({ id, name, layer }: Snapshot, stack: SnapshotStack): Promise<Layer> {
    const isOverlaybd = await holdsOverlaybdLayer(this.#directories.files(id));
    if (layer.type === 'download' && !isOverlaybd) {
      const found = `snapshot "${name}" has no ${LAYER_FILE} in it: the layer says that it is an overlaybd layer, and is none`;
      throw new ObdError(ErrorCodes.FailedPrecondition, found);
    }
    if (!isOverlaybd) return { type: 'files' };
    const below = stack.files[0];
    if (below !== undefined) throw blocksOnFiles(name, below.name);
    const fileSystem = layer.type === 'download' ? layer.fileSystem : DEFAULT_FILE_SYSTEM;
    return { type: 'local', fileSystem };
  }

  async #removeDirectory(name: number | string): Promise<void> {
    try {
      await this.#directories.remove(name);
    } catch (error) {
      this.#log.warn({ directory: name, err: error }, 'a directory could not be removed yet');
    }
  }

  async #reconcile(): Promise<void> {
    const names = await this.#directories.names();
    for (const name of names) if (isUnfinished(name)) await this.#removeDirectory(name);
    const present = new Set(names.map(snapshotIdIn));
    for (const id of present) this.#store.reserveIdsUpTo(id ?? 0);
    await this.cleanup();
    for (const { id, name, layer } of this.list(() => true)) {
      if (present.has(id)) continue;
      const isEmpty = layer.type === 'remote' || layer.type === 'trace';
      const problem = isEmpty ? await this.#remade(id) : 'remove the snapshot';
      if (problem === undefined) continue;
      this.#log.error({ snapshotId: id, name, problem }, 'the directory of a snapshot is missing');
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

/** For filters, as containerd's snapshotters name the fields. */
function fieldOf(snapshot: Snapshot, [first, ...rest]: readonly string[]): string | undefined {
  switch (first) {
    case 'name':
      return snapshot.name;
    case 'parent':
      return snapshot.parent;
    case 'kind':
      return snapshot.kind;
    case 'labels': {
      const label = rest.join('.');
      return Object.hasOwn(snapshot.labels, label) ? snapshot.labels[label] : undefined;
    }
    default:
      return undefined;
  }
}

function alreadyExists(name: string): ObdError {
  return new ObdError(ErrorCodes.AlreadyExists, `snapshot "${name}" already exists`);
}

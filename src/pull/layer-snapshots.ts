/**
 * The snapshot of one layer: the snapshotter's own if it can serve the layer lazily, else one into which the layer is
 * downloaded and unpacked.
 *
 * containerd's protocol for this: Prepare names the wanted snapshot (`containerd.io/snapshot.ref`, the chain ID) and
 * describes the layer, in labels. A snapshotter that can serve it commits a snapshot under that name and answers
 * "already exists"; a snapshotter that cannot, or does not know this protocol, answers with mounts.
 */
import { randomBytes } from 'node:crypto';
import { ContentStore, type Labels } from '../containerd/content-store.js';
import { type SnapshotInfo, Snapshots } from '../containerd/snapshots.js';
import { unpackLayer } from '../containerd/unpack-layer.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import type { ImageSource } from '../oci/image-store.js';
import type { Descriptor } from '../oci/manifest.js';
import type { ImageReference } from '../oci/reference.js';
import { REFUSED_LABEL, REGISTRY_LABEL, SERVED_LABEL } from '../snapshotter/labels.js';
import type { PullProgress } from './pull-progress.js';
import { sourceLabels } from './source-labels.js';

/** Garbage collection may remove an existing snapshot before we stat it: retries, as in containerd's client. */
const TRIES_MAX = 3;

export interface ChainedLayer {
  readonly descriptor: Descriptor;
  readonly diffId: string;
  readonly chainId: string;
  /** Chain ID of the layer below; "" for the bottom. */
  readonly parent: string;
}

interface ActiveSnapshot {
  readonly key: string;
  readonly mounts: Awaited<ReturnType<Snapshots['prepare']>>;
}

interface LayersOf {
  readonly source: ImageSource;
  readonly reference: ImageReference;
  /** The address that registryAddress() gives for the reference. */
  readonly registry: string;
  readonly snapshotter: string;
  /** Each layer's snapshot gets them, and those of containerd's protocol. */
  readonly labels: Labels;
}

export class LayerSnapshots {
  readonly #client: GrpcClient;
  readonly #image: LayersOf;
  readonly #progress: PullProgress;
  readonly #content: ContentStore;
  readonly #snapshots: Snapshots;
  /** For cleaning up after #client's signal was aborted. */
  readonly #undoing: Snapshots;
  readonly #refused: string[] = [];
  #warned = false;

  /** @param undoing - The same client, without a signal. */
  constructor(client: GrpcClient, undoing: GrpcClient, image: LayersOf, progress: PullProgress) {
    this.#client = client;
    this.#image = image;
    this.#progress = progress;
    this.#content = new ContentStore(client);
    this.#snapshots = new Snapshots(client, image.snapshotter);
    this.#undoing = new Snapshots(undoing, image.snapshotter);
  }

  /**
   * The parent's snapshot must exist.
   *
   * @throws {ObdError} `FailedPrecondition` if the snapshot exists and is read from another registry, which alone vouches
   *   for its bytes.
   */
  async ensure(layer: ChainedLayer, number: number, layers: number): Promise<void> {
    const { digest, size } = layer.descriptor;
    this.#progress.layerStarted(number, layers, digest, size);
    const found = await this.#find(layer.chainId);
    if (found !== undefined) this.#checkRegistry(found);
    // Prepare even if present: this puts the snapshot under our lease.
    const prepared = await this.#prepare(layer);
    const isActive = 'mounts' in prepared;
    if (isActive) {
      this.#warnOfDownload(number);
      await this.#fill(layer, prepared);
    } else this.#noteRefused(layer, prepared);
    const fate = isActive ? 'unpacked' : found !== undefined ? 'present' : 'lazy';
    this.#progress.layerDone(fate, size);
  }

  /** Call after the last layer: a container of an image with a refused layer would not start. @throws {ObdError} */
  checkNoneRefused(): void {
    if (this.#refused.length === 0) return;
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot pull ${this.#image.reference}: the snapshotter "${this.#image.snapshotter}" has, and refuses to serve, ${this.#refused.join('; ')}. Remove all images with these layers, in each of containerd's namespaces, and pull again`,
      { reference: this.#image.reference.toString() },
    );
  }

  #noteRefused({ descriptor }: ChainedLayer, { labels }: SnapshotInfo): void {
    if (labels[SERVED_LABEL] !== 'refused') return;
    this.#refused.push(`layer ${descriptor.digest} (${labels[REFUSED_LABEL] ?? 'unproved'})`);
  }

  /** A snapshot to unpack the layer into, or the layer's own if it already has one. */
  async #prepare(layer: ChainedLayer): Promise<ActiveSnapshot | SnapshotInfo> {
    const { reference, labels: more } = this.#image;
    const labels = { ...more, ...prepareLabels(layer, reference) };
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const key = `extract-${Date.now()}-${randomBytes(6).toString('base64url')} ${layer.chainId}`;
      try {
        return { key, mounts: await this.#snapshots.prepare(key, layer.parent, labels) };
      } catch (error) {
        if (!hasCode(error, ErrorCodes.AlreadyExists)) {
          await this.#discard(key);
          throw error;
        }
      }
      const existing = await this.#find(layer.chainId);
      if (existing !== undefined) return existing;
    }
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot use the snapshotter "${this.#image.snapshotter}": it says that ${layer.chainId} exists, and then that it does not`,
      { digest: layer.descriptor.digest },
    );
  }

  async #fill(layer: ChainedLayer, { key, mounts }: ActiveSnapshot): Promise<void> {
    const { descriptor, diffId, chainId } = layer;
    try {
      await this.#download(descriptor);
      await unpackLayer(this.#client, descriptor, mounts, diffId);
      await this.#snapshots.commit(chainId, key, { 'containerd.io/snapshot.ref': chainId });
    } catch (error) {
      await this.#discard(key);
      // Another client may have unpacked the same layer.
      if (!hasCode(error, ErrorCodes.AlreadyExists)) throw error;
    }
    await this.#content.setLabels(descriptor.digest, { 'containerd.io/uncompressed': diffId });
  }

  /** Runs after an abort too. If it fails, garbage collection removes the snapshot with the lease. */
  async #discard(key: string): Promise<void> {
    await this.#undoing.remove(key).catch(() => {});
  }

  async #find(chainId: string): Promise<SnapshotInfo | undefined> {
    try {
      return await this.#snapshots.stat(chainId);
    } catch (error) {
      if (hasCode(error, ErrorCodes.NotFound)) return undefined;
      throw error;
    }
  }

  /** containerd does not ask the snapshotter for a layer that this namespace has. */
  #checkRegistry({ name, labels }: SnapshotInfo): void {
    const { reference, registry } = this.#image;
    const { [REGISTRY_LABEL]: from = registry } = labels;
    if (isSameRegistry(from, registry)) return;
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot pull ${reference}: this namespace of containerd has its layer ${name} from the registry ${from}, and containerd would use that; remove the images that were pulled from there (\`ctr images list\`, \`ctr images remove --sync\`), or pull into another namespace with --namespace`,
      { reference: reference.toString() },
    );
  }

  async #download(descriptor: Descriptor): Promise<void> {
    const { source, reference } = this.#image;
    const labels = sourceLabels(await this.#content.labels(descriptor.digest), reference);
    await this.#content.write(descriptor, labels, this.#counted(source.readBlob(descriptor)));
  }

  async *#counted(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      this.#progress.bytesFetched(piece.length);
      yield piece;
    }
  }

  #warnOfDownload(number: number): void {
    if (this.#warned) return;
    this.#warned = true;
    const { snapshotter } = this.#image;
    this.#progress.warning(
      `the snapshotter "${snapshotter}" does not serve layer ${number} lazily: downloading it, and all that follow like it`,
    );
  }
}

/** Ports 80 and 443 of one host are one registry: only this program knows of --plain-http. */
function isSameRegistry(a: string, b: string): boolean {
  const plain = (address: string) => address.replace(/:(?:80|443)$/, '');
  return plain(a) === plain(b);
}

function prepareLabels({ descriptor, chainId }: ChainedLayer, reference: ImageReference): Labels {
  const annotations = Object.entries(descriptor.annotations ?? {});
  return {
    ...Object.fromEntries(annotations.filter(([key]) => key.startsWith('containerd.io/snapshot/'))),
    'containerd.io/snapshot.ref': chainId,
    'containerd.io/snapshot/image-ref': reference.toString(),
    'containerd.io/snapshot/cri.image-ref': reference.toString(),
  };
}

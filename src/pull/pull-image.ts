/**
 * Pulls an image into containerd as containerd's own client does, with one difference: a layer is fetched only if the
 * snapshotter has no snapshot of it.
 *
 *   1. a lease, which protects the following from garbage collection
 *   2. index, manifest and config into the content store, with the labels by which a snapshotter finds them
 *   3. each layer's snapshot, bottom first (layer-snapshots.ts)
 *   4. the image record, which protects all of that; then the lease is removed
 *
 * The image is invisible until its record is made. A failure before that removes the lease with everything under it, and
 * unfinished snapshots; earlier content stays unchanged. A killed run leaves its lease, which the next run in the same
 * namespace removes.
 */
import { underLease } from '../containerd/connect.js';
import { ContentStore, type Labels } from '../containerd/content-store.js';
import { ImageRecords } from '../containerd/image-records.js';
import { Leases } from '../containerd/leases.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { isMarked, type LayerKind } from '../layers/layer-kind.js';
import { chainIds } from '../oci/image-identity.js';
import { type ImageSource, readSmallBlob } from '../oci/image-store.js';
import { imageFor } from '../oci/index-images.js';
import {
  CONFIG_BYTES_MAX,
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
  type StoredImage,
  type StoredManifest,
} from '../oci/manifest.js';
import { formatPlatform, matchesPlatform, type Platform } from '../oci/platform.js';
import type { ImageReference } from '../oci/reference.js';
import { type ChainedLayer, LayerSnapshots } from './layer-snapshots.js';
import type { PullProgress } from './pull-progress.js';
import { childLabels, configLabel, isLayer, sourceLabels } from './source-labels.js';

/** As in containerd's client; a slower pull has other problems. */
const LEASE_MS = 24 * 3600 * 1000;

export interface WantedImage {
  readonly source: ImageSource;
  /** `source.resolve()`, which may be under way while containerd is asked what it can do. */
  readonly top: Promise<StoredManifest>;
  readonly reference: ImageReference;
  /** The address that registryAddress() gives for the reference. */
  readonly registry: string;
  readonly platform: Platform;
  readonly snapshotter: string;
  /** Each layer's snapshot gets them, and those of containerd's protocol. */
  readonly labels: Readonly<Record<string, string>>;
  /** Returns why that snapshotter cannot serve an overlaybd image; undefined if it may. */
  readonly unfitForOverlaybd: string | undefined;
  /** The kinds of layer that only such a snapshotter can serve. */
  readonly kinds: readonly LayerKind[];
}

export interface PulledImage {
  /** Digest of the index or manifest that the reference names. */
  readonly digest: string;
  /** Bytes that a full pull would fetch. */
  readonly totalBytes: number;
}

/**
 * @param containerd - In the namespace to pull into; the caller closes it.
 * @throws {ObdError} errors of the registry, containerd or the snapshotter; the reason of `signal`.
 */
export async function pullImage(
  containerd: GrpcClient,
  image: WantedImage,
  progress: PullProgress,
  signal: AbortSignal,
): Promise<PulledImage> {
  const leases = new Leases(containerd);
  // Best effort: a failed clean-up after killed runs must not fail this pull.
  await leases.removeAbandoned().catch(() => {});
  const lease = await leases.create(LEASE_MS);
  const leased = underLease(containerd, lease);
  try {
    const pulled = await new Pull(leased, image, progress, signal).run();
    await leases.remove(lease, false);
    return pulled;
  } catch (error) {
    // The first error explains more than a failed clean-up; the lease expires by itself.
    await leases.remove(lease, true).catch(() => {});
    throw error;
  }
}

class Pull {
  readonly #image: WantedImage;
  readonly #progress: PullProgress;
  readonly #content: ContentStore;
  readonly #records: ImageRecords;
  readonly #layers: LayerSnapshots;
  #totalBytes = 0;

  constructor(leased: GrpcClient, image: WantedImage, progress: PullProgress, signal: AbortSignal) {
    const client = leased.with({ signal });
    this.#image = image;
    this.#progress = progress;
    this.#content = new ContentStore(client);
    // Without the signal: this step must not be interrupted.
    this.#records = new ImageRecords(leased);
    this.#layers = new LayerSnapshots(client, leased, image, progress);
  }

  async run(): Promise<PulledImage> {
    const { source, reference, platform, snapshotter } = this.#image;
    const top = await this.#image.top;
    const stored = top.kind === 'image' ? top : await imageFor(source, top.index, platform);
    this.#checkServable(stored);
    if (top.kind === 'index') {
      await this.#store(top.descriptor, childLabels(top.index.manifests), top.bytes);
    }
    const config = await this.#storeImage(stored);
    const layers = chainedLayers(stored.manifest, config, reference);
    this.#totalBytes += layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
    for (const [i, layer] of layers.entries()) {
      await this.#layers.ensure(layer, i + 1, layers.length);
    }
    this.#layers.checkNoneRefused();
    const chain = layers.at(-1)?.chainId;
    if (chain !== undefined) {
      const label = { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: chain };
      await this.#content.setLabels(stored.manifest.config.digest, label);
    }
    await this.#records.set(reference.toString(), top.descriptor);
    return { digest: top.descriptor.digest, totalBytes: this.#totalBytes };
  }

  /** containerd would unpack such layers like any other, into a file instead of a file system. */
  #checkServable({ manifest }: StoredImage): void {
    const { reference, snapshotter, unfitForOverlaybd, kinds } = this.#image;
    const isOverlaybd = manifest.layers.some((layer) => isMarked(kinds, layer));
    if (unfitForOverlaybd === undefined || !isOverlaybd) return;
    throw new ObdError(
      ErrorCodes.FailedPrecondition,
      `Cannot pull ${reference} with the snapshotter "${snapshotter}": it is an overlaybd image, and ${unfitForOverlaybd}; use --snapshotter obd-ts, or pull the image that it was converted from`,
      { reference: reference.toString() },
    );
  }

  async #storeImage({ descriptor, manifest, bytes }: StoredImage): Promise<ImageConfig> {
    const { source, reference, platform } = this.#image;
    const label = `the config of ${reference}`;
    const configBytes = await readSmallBlob(source, manifest.config, CONFIG_BYTES_MAX);
    const config = parseImageConfig(configBytes, label);
    if (!matchesPlatform(platform, config)) {
      const found = formatPlatform(config);
      throw new ObdError(
        ErrorCodes.NotFound,
        `Cannot pull ${reference} for ${formatPlatform(platform)}: it is for ${found}; ask for that with --platform ${found}`,
        { reference: reference.toString() },
      );
    }
    await this.#store(manifest.config, {}, configBytes);
    const labels = { ...configLabel(manifest.config), ...childLabels(manifest.layers) };
    await this.#store(descriptor, labels, bytes);
    return config;
  }

  async #store(descriptor: Descriptor, labels: Labels, bytes: Uint8Array): Promise<void> {
    this.#progress.bytesFetched(bytes.length);
    this.#totalBytes += bytes.length;
    const known = await this.#content.labels(descriptor.digest);
    const source = sourceLabels(known, this.#image.reference);
    await this.#content.write(descriptor, { ...labels, ...source }, [bytes]);
  }
}

/** Returns the layers with their identifiers. @throws {ObdError} `Corrupt` if manifest and config do not agree. */
function chainedLayers(
  manifest: ImageManifest,
  config: ImageConfig,
  reference: ImageReference,
): ChainedLayer[] {
  const layers = manifest.layers.filter(isLayer);
  const diffIds = config.rootfs.diff_ids;
  if (layers.length !== diffIds.length) {
    throw new ObdError(
      ErrorCodes.Corrupt,
      `Cannot pull ${reference}: its manifest has ${layers.length} layers, and its config ${diffIds.length}`,
      { reference: reference.toString() },
    );
  }
  const chain = chainIds(diffIds);
  return layers.map((descriptor, i) => ({
    descriptor,
    diffId: diffIds[i]!,
    chainId: chain[i]!,
    parent: chain[i - 1] ?? '',
  }));
}

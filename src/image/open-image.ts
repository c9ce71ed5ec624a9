/**
 * Opens an image config as the disk that its layers add up to.
 *
 * A layer is, first match first: `file`, `dir`/overlaybd.commit, `dir`/.commit, `dir`/overlaybd.sealed, or
 * the blob in the registry. openImage() opens all layers in parallel. If one fails, it closes all layers, aborts the
 * fetches of those still being opened, and throws an error that names the failed layer.
 *
 * Cost of a layer that is remote and not cached: two requests at once. One is for the blob's first part, which has the headers and
 * the file system's metadata as far as the config says how long they are. The other is for the last part, which has the indexes
 * of ZFile and layer; a hash tree follows these, and its beginning comes with them. If the indexes are larger than expected, one
 * or two more requests follow, one after the other.
 *
 * All layers are at the same step: first all headers, then all tables of compressed blocks, then all indexes of layers.
 * The memory of a step is charged once for all layers before the step begins (src/io/index-budget.ts), so an image that
 * claims too much is refused after the parts of opening-parts.ts, whose sum has a limit for any number of layers.
 */
import { join } from 'node:path';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { IndexMemory } from '../io/index-budget.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { LayerOpening } from '../layers/layer-format.js';
import type { LowerLayer } from '../layers/lower-layer.js';
import { beginLayer, holdsNoBlocks, type LayerDependencies } from '../layers/open-layer.js';
import { openingParts } from '../layers/opening-parts.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { parseBlobUrl } from '../oci/blob-url.js';
import type { HashTree } from '../zfile/hash-tree.js';
import type { ImageConfig } from './image-config.js';

/** The same limit as in overlaybd. */
const OPENINGS_MAX = 32;
/** In `dir`, in order; old versions of overlaybd's snapshotter wrote the second. */
const LOCAL_NAMES = ['overlaybd.commit', '.commit', 'overlaybd.sealed'] as const;
/** A blob of a registry, with its size if known. */
export interface BlobAddress {
  readonly host: string;
  readonly repository: string;
  readonly digest: string;
  /** Undefined if not known: the registry is asked then. */
  readonly sizeBytes: number | undefined;
}

export interface ImageDependencies<B extends RandomAccessFile> extends LayerDependencies {
  /** The blob as a file that is fetched as it is read. @throws {ObdError} if it cannot be opened. */
  readonly openBlob: (address: BlobAddress) => Promise<B>;
  /** Charged with the indexes of this image; its owner releases the charge when the image closes. */
  readonly memory: IndexMemory;
}

export class OpenedImage<B extends RandomAccessFile> {
  readonly disk: LayerStack;
  readonly layers: number;
  readonly remote: readonly B[];
  /** Remote layers without ZFile, and so without checksums. */
  readonly uncheckedLayers: number;
  /** Remote layers whose reads are proved by their hash trees. */
  readonly provedLayers: number;
  /** The hash trees of the layers, bottom first; undefined for a layer without one. */
  readonly trees: readonly (HashTree | undefined)[];
  /** The layers' files without tar and compression, bottom first. The disk closes them. */
  readonly files: readonly RandomAccessFile[];
  /** The layer that names the reads of a recorded start. */
  readonly trace: LowerLayer | undefined;

  constructor(
    disk: LayerStack,
    opened: readonly Opening<B>[],
    files: readonly RandomAccessFile[],
    trace: LowerLayer | undefined,
  ) {
    this.disk = disk;
    this.files = files;
    this.trace = trace;
    this.layers = opened.length;
    this.remote = opened.flatMap(({ remote }) => (remote === undefined ? [] : [remote]));
    this.uncheckedLayers = opened.filter(
      ({ remote, layer }) => remote !== undefined && !layer.isChecked,
    ).length;
    this.trees = opened.map(({ layer }) => layer.tree);
    this.provedLayers = opened.filter(({ layer }) => layer.isProved).length;
  }

  /** Sum of the sizes of the remote blobs. */
  get remoteBytes(): number {
    return this.remote.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /** Idempotent. */
  close(): void {
    this.disk.close();
  }
}

/** @throws {ObdError} naming the layer that cannot be opened, with the code of the cause. */
export async function openImage<B extends RandomAccessFile>(
  config: ImageConfig,
  dependencies: ImageDependencies<B>,
): Promise<OpenedImage<B>> {
  const { upper } = config;
  if (upper?.index || upper?.data || upper?.target) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      'Cannot open an image with an "upper" layer: devices are read-only; leave it out and put an overlayfs above the device',
    );
  }
  const { blocks, trace } = splitLayers(config, dependencies);
  const { memory } = dependencies;
  const blobs = new OpeningBlobs(dependencies.openBlob);
  const openings: Opening<B>[] = new Array(blocks.length);
  /** On all layers, OPENINGS_MAX at a time. */
  const onAll = async (work: (i: number) => Promise<void>): Promise<void> => {
    await forEachOf(blocks, async (_, i) => {
      try {
        await work(i);
      } catch (error) {
        blobs.close();
        throw named(error, i, blocks);
      }
    });
  };
  try {
    await onAll(async (i) => {
      openings[i] = await openLower(blocks[i]!, config.repoBlobUrl, blocks.length, {
        ...dependencies,
        openBlob: (address) => blobs.open(address),
      });
    });
    const layers = openings.map(({ layer }) => layer);
    const largest = largestOf(layers);
    await memory.charge(sumOf(layers, 'tableBytes'), largest);
    await onAll((i) => layers[i]!.loadTable());
    const mergeBytes = LayerStack.mergeBytes(sumOf(layers, 'segmentsMax'));
    const chargedBytes = sumOf(layers, 'indexBytes') + mergeBytes;
    await memory.charge(chargedBytes, largest);
    const opened: Layer[] = new Array(blocks.length);
    await onAll(async (i) => {
      opened[i] = await layers[i]!.loadIndex();
    });
    const files = opened.map(({ sources }) => sources[0]!);
    // The stack keeps a merged index and drops those of the layers.
    const stack = new LayerStack(opened);
    const spareBytes = chargedBytes - stack.indexBytes;
    if (spareBytes > 0) memory.release(spareBytes);
    else await memory.charge(-spareBytes, stack.label);
    return new OpenedImage(stack, openings, files, trace);
  } catch (error) {
    // Layers that were not reached are holes in the array, which forEach skips.
    openings.forEach(({ layer }) => {
      layer.close();
    });
    throw error;
  }
}

/**
 * The layers that make up the disk, and the topmost trace of reads, which is none of them. overlaybd allows one trace, as the
 * topmost layer; an image built on one that has a trace has it further down, marked by its kind.
 */
export function splitLayers(
  { lowers, accelerationLayer }: ImageConfig,
  { formats }: Pick<LayerDependencies, 'formats'>,
): { readonly blocks: readonly LowerLayer[]; readonly trace: LowerLayer | undefined } {
  const isTop = accelerationLayer === true;
  const rest = isTop ? lowers.slice(0, -1) : lowers;
  const traces = rest.filter((lower) => holdsNoBlocks(lower, formats));
  return {
    blocks: rest.filter((lower) => !traces.includes(lower)),
    trace: isTop ? lowers.at(-1) : traces.at(-1),
  };
}

function sumOf(
  layers: readonly LayerOpening[],
  what: 'tableBytes' | 'indexBytes' | 'segmentsMax',
): number {
  return layers.reduce((sum, layer) => sum + layer[what], 0);
}

/** The name of the layer that has the most blocks, which stands for the image in errors. */
function largestOf(layers: readonly LayerOpening[]): string {
  let largest = layers[0];
  for (const layer of layers) if (layer.tableBytes > largest!.tableBytes) largest = layer;
  return largest?.label ?? '';
}

/** The blobs of an image that is being opened. After one layer has failed, close() ends the fetches of all. */
class OpeningBlobs<B extends RandomAccessFile> {
  readonly #open: ImageDependencies<B>['openBlob'];
  readonly #blobs: B[] = [];
  #closed = false;

  constructor(open: ImageDependencies<B>['openBlob']) {
    this.#open = open;
  }

  async open(address: BlobAddress): Promise<B> {
    const blob = await this.#open(address);
    if (this.#closed) blob.close();
    this.#blobs.push(blob);
    return blob;
  }

  close(): void {
    this.#closed = true;
    for (const blob of this.#blobs) blob.close();
  }
}

interface Opening<B> {
  readonly layer: LayerOpening;
  /** The blob, where the layer is remote. */
  readonly remote: B | undefined;
}

/** Fetches the ends of one of `count` layers, and reads its head. */
async function openLower<B extends RandomAccessFile>(
  lower: LowerLayer,
  repoBlobUrl: string,
  count: number,
  dependencies: ImageDependencies<B>,
): Promise<Opening<B>> {
  const local = openLocal(lower);
  const remote =
    local === undefined ? await openRemote(lower, repoBlobUrl, dependencies) : undefined;
  try {
    if (remote !== undefined) {
      // In one turn, so that the parts of a small blob share one request.
      const parts = openingParts(lower, remote.sizeBytes, count);
      await Promise.all(parts.map(({ offset, length }) => remote.load(offset, length)));
    }
  } catch (error) {
    remote?.close();
    throw error;
  }
  const source = (local ?? remote) as RandomAccessFile;
  // A local file is what containerd unpacked: it checked the digest, and left out the tree, which is behind the tar.
  const { hashTree, ...untreed } = lower;
  const described = remote === undefined ? untreed : lower;
  return { layer: await beginLayer(source, described, dependencies), remote };
}

function openLocal({ file, dir }: LowerLayer): LocalFile | undefined {
  for (const path of localPaths(file, dir)) {
    try {
      return LocalFile.open(path);
    } catch (error) {
      if (!hasCode(error, ErrorCodes.NotFound)) throw error;
    }
  }
  return undefined;
}

/** Without a `dir`, its names would be in the root directory. */
function localPaths(file: string | undefined, dir: string | undefined): string[] {
  const named = file ? [file] : [];
  return dir ? [...named, ...LOCAL_NAMES.map((name) => join(dir, name))] : named;
}

async function openRemote<B extends RandomAccessFile>(
  { file, dir, digest, size, repoBlobUrl: own }: LowerLayer,
  repoBlobUrl: string,
  { openBlob }: ImageDependencies<B>,
): Promise<B> {
  const repository = parseBlobUrl(own || repoBlobUrl);
  if (!digest || repository === undefined) {
    const tried = localPaths(file, dir).map((path) => `"${path}"`);
    const missing = digest ? 'the image has no "repoBlobUrl"' : 'it has no "digest"';
    throw new ObdError(
      tried.length > 0 ? ErrorCodes.NotFound : ErrorCodes.InvalidArgument,
      `there is no ${tried.length > 0 ? tried.join(', ') : '"file" or "dir"'}, and ${missing}`,
    );
  }
  return await openBlob({ ...repository, digest, sizeBytes: size || undefined });
}

/** Runs `work` on all, OPENINGS_MAX at a time; after a failure starts no more, and throws the first. */
async function forEachOf<T>(
  items: readonly T[],
  work: (item: T, i: number) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length && failures.length === 0) {
      const i = next++;
      await work(items[i]!, i).catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(OPENINGS_MAX, items.length) }, worker));
  if (failures.length > 0) throw failures[0];
}

function named(error: unknown, i: number, { length }: readonly LowerLayer[]): unknown {
  if (!(error instanceof ObdError)) return error;
  const message = `Cannot open layer ${i + 1} of ${length}: ${error.message}`;
  return new ObdError(error.code, message, error.details, error);
}

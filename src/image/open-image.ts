/**
 * From an image config to the disk that its layers add up to.
 *
 * A layer is, first match first: `file`, `dir`/overlaybd.commit, `dir`/.commit, `dir`/overlaybd.sealed, or
 * the blob in the registry. All layers are opened in parallel; if one cannot be, all are closed again, and
 * the error says which it was.
 *
 * Cost of a layer that is remote and not cached: two requests at once, one of the blob's first chunk, which
 * has the headers, and one of its last part, which has the indexes of ZFile and layer. Where these are
 * larger than expected there are one or two more, one after the other.
 */
import { join } from 'node:path';
import type { BlockCache } from '../cache/block-cache.js';
import type { CachedBlob } from '../cache/cached-blob.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { openLayer, openTurboLayer } from '../lsmt/open-layer.js';
import type { BlobRanges } from '../registry/blob-ranges.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { parseBlobUrl } from './blob-url.js';
import type { ImageConfig, LowerLayer } from './image-config.js';

/** As overlaybd has it. */
const OPENINGS_MAX = 32;
/** In `dir`, in order; the second is what old versions of overlaybd's snapshotter wrote. */
const LOCAL_NAMES = ['overlaybd.commit', '.commit', 'overlaybd.sealed'] as const;
/** Headers of tar, ZFile and layer. */
const HEAD_BYTES = 4096;
/**
 * How much of a blob's end is fetched to open it. The ZFile's index has 4 bytes per block, so with blocks of
 * 4 KiB compressed to a half it is a 512th of the blob; the layer's own index is a few KiB before it.
 */
const TAIL_SHARE = 1 / 512;
const TAIL_BYTES_MIN = 64 * 1024;

/** The registry client, as far as it matters here. */
interface BlobSource {
  /** @param sizeBytes - Undefined if not known: the registry is asked then. */
  blobRanges(
    host: string,
    repository: string,
    digest: string,
    sizeBytes: number | undefined,
  ): Promise<BlobRanges>;
}

export interface ImageSurroundings {
  readonly cache: BlockCache;
  readonly client: BlobSource;
  /** The cache that all files of this thread share. */
  readonly decoded: DecodedBlocks;
}

export class OpenedImage {
  readonly disk: LayerStack;
  readonly layers: number;
  /** Sum of the sizes of the remote blobs. */
  readonly remoteBytes: number;
  readonly #remote: readonly CachedBlob[];

  constructor(disk: LayerStack, layers: number, remote: readonly CachedBlob[]) {
    this.disk = disk;
    this.layers = layers;
    this.#remote = remote;
    this.remoteBytes = this.#sum((blob) => blob.sizeBytes);
  }

  /** Of the remote blobs, how much is on this disk. */
  cachedBytes(): number {
    return this.#sum((blob) => blob.cachedBytes);
  }

  /** What this image made the cache fetch since it was opened. */
  fetchedBytes(): number {
    return this.#sum((blob) => blob.fetchedBytes);
  }

  fetchRequests(): number {
    return this.#sum((blob) => blob.fetchRequests);
  }

  /** Idempotent. */
  close(): void {
    this.disk.close();
  }

  #sum(of: (blob: CachedBlob) => number): number {
    return this.#remote.reduce((sum, blob) => sum + of(blob), 0);
  }
}

/** @throws {ObdError} naming the layer, with the code of what kept it from being opened. */
export async function openImage(
  config: ImageConfig,
  surroundings: ImageSurroundings,
): Promise<OpenedImage> {
  const { upper, lowers, accelerationLayer } = config;
  if (upper?.index || upper?.data || upper?.target) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      'Cannot open an image with an "upper" layer: devices are read-only; leave it out and put an overlayfs above the device',
    );
  }
  // A trace, for prefetching, is no part of the disk.
  const blocks = accelerationLayer === true ? lowers.slice(0, -1) : lowers;
  const opened: Opened[] = new Array(blocks.length);
  try {
    await forEachOf(blocks, async (lower, i) => {
      try {
        opened[i] = await openLower(lower, config.repoBlobUrl, surroundings);
      } catch (error) {
        throw named(error, i, blocks);
      }
    });
    const stack = new LayerStack(opened.map(({ layer }) => layer));
    const remote = opened.flatMap(({ remote }) => (remote === undefined ? [] : [remote]));
    return new OpenedImage(stack, blocks.length, remote);
  } catch (error) {
    // Those that were not reached are holes, which forEach passes over.
    opened.forEach(({ layer }) => {
      layer.close();
    });
    throw error;
  }
}

interface Opened {
  readonly layer: Layer;
  /** The blob, where the layer is remote. */
  readonly remote: CachedBlob | undefined;
}

async function openLower(
  lower: LowerLayer,
  repoBlobUrl: string,
  surroundings: ImageSurroundings,
): Promise<Opened> {
  const { decoded } = surroundings;
  if (lower.gzipIndex || (lower.targetDigest && !lower.targetFile)) {
    throw new ObdError(
      ErrorCodes.Unsupported,
      'its contents are in a remote or compressed tar (TurboOCI); only "targetFile", a local and uncompressed one, is supported',
    );
  }
  const local = openLocal(lower);
  const remote =
    local === undefined ? await openRemote(lower, repoBlobUrl, surroundings) : undefined;
  const source = (local ?? remote) as RandomAccessFile;
  let target: LocalFile | undefined;
  try {
    if (remote !== undefined) await loadEnds(remote);
    if (!lower.targetFile) return { layer: await openLayer(source, decoded), remote };
    target = LocalFile.open(lower.targetFile);
    return { layer: await openTurboLayer(source, target, decoded), remote };
  } catch (error) {
    source.close();
    target?.close();
    throw error;
  }
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

async function openRemote(
  { file, dir, digest, size }: LowerLayer,
  repoBlobUrl: string,
  { cache, client }: ImageSurroundings,
): Promise<CachedBlob> {
  const repository = parseBlobUrl(repoBlobUrl);
  if (!digest || repository === undefined) {
    const tried = localPaths(file, dir).map((path) => `"${path}"`);
    const missing = digest ? 'the image has no "repoBlobUrl"' : 'it has no "digest"';
    throw new ObdError(
      tried.length > 0 ? ErrorCodes.NotFound : ErrorCodes.InvalidArgument,
      `there is no ${tried.length > 0 ? tried.join(', ') : '"file" or "dir"'}, and ${missing}`,
    );
  }
  const { host, repository: name } = repository;
  return await cache.openBlob(await client.blobRanges(host, name, digest, size || undefined));
}

/** Brings what opening reads, in one turn, so that the ends of a small blob come in one request. */
async function loadEnds(blob: CachedBlob): Promise<void> {
  const { sizeBytes } = blob;
  const wanted = Math.max(TAIL_BYTES_MIN, Math.ceil(sizeBytes * TAIL_SHARE));
  const tailBytes = Math.min(sizeBytes, wanted);
  await Promise.all([
    blob.load(0, Math.min(HEAD_BYTES, sizeBytes)),
    blob.load(sizeBytes - tailBytes, tailBytes),
  ]);
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

/**
 * Hot blobs that this host has or fetches: the pages that a start reads, kept decoded in a file of the cache for each image.
 *
 *   0            u32, the bytes of the index, and the index (docs/formats/hot-blob.md), filled up to whole chunks
 *   pagesAt()    the pages, 4 KiB each, in the order of their slots
 *
 * Pages are proved while they arrive, before they are stored: anyone who may push can name a hot blob for an image. The name of
 * the file has the digests of the layers, the roots of their hash trees and the variant of the start, so images and starts that differ
 * in these share no pages.
 * The cache evicts the pages as it evicts any chunk; reads find them in the layers' blobs then.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobHandle } from '../cache/blob-handle.js';
import type { BlobKey } from '../cache/blob-key.js';
import { BlobReader } from '../cache/blob-reader.js';
import type { BlobSource } from '../cache/blob-source.js';
import type { BlockCache } from '../cache/block-cache.js';
import { OverflowChunks } from '../cache/overflow-chunks.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { readHotBlob } from '../hot-blob/hot-blob-reader.js';
import {
  encodeHotIndex,
  HOT_BLOB_BYTES_MAX,
  type HotIndex,
  parseHotIndex,
} from '../hot-blob/hot-index.js';
import { PAGE_BYTES, pagesAt } from '../hot-blob/hot-pages.js';
import { HotProgress } from '../hot-blob/hot-progress.js';
import { CHUNK_BYTES, readFully } from '../io/random-access-file.js';
import type { AttemptOptions, RangeFill } from '../io/ranged-source.js';
import { type OrderWish, variantOf } from '../load-order/select-order.js';
import type { RegistryClient } from '../registry/registry-client.js';

/** No host of a registry has brackets around anything but an IPv6 address. */
const ORIGIN = '[hot-pages]';
/** Streams of one registry at once: each has a connection that reads would wait for. */
const STREAMS_MAX = 4;
/** The limit for the index, which is the first of a stream: later ones help no start. */
const INDEX_MS_MAX = 5_000;
const TURN_POLL_MS = 50;
/** Stored at once. */
const WINDOW_BYTES = 4 * CHUNK_BYTES;
const LENGTH_BYTES = 4;
/** Pages of which so many are stored are not fetched again. */
const STORED_SHARE = 0.9;

/** A layer as the image's manifest names it. */
interface HotLayerName {
  readonly digest: string;
  readonly root: string | undefined;
}

/** An image of a repository. Images of others share no pages with it. */
export interface HotImageName {
  readonly host: string;
  readonly repository: string;
  /** Bottom first. */
  readonly layers: readonly HotLayerName[];
  /** Starts of different variants keep different pages. */
  readonly wish: OrderWish;
}

export interface HotBlobAddress {
  readonly host: string;
  readonly repository: string;
  readonly digest: string;
  readonly sizeBytes: number;
}

/** The pages of one image. */
export class HotImage {
  readonly index: HotIndex;
  /** The index with its length. */
  readonly indexBytes: number;
  readonly progress: HotProgress;
  /** Whether all pages are here or on their way, but for a few that the cache has evicted. */
  readonly isWhole: boolean;
  /** Settles when all have come, or none comes any more: it rejects then, and may do so without a listener. */
  readonly done: Promise<void>;
  readonly #cache: Pick<BlockCache, 'openBlob'>;
  readonly #key: BlobKey;

  constructor(
    cache: Pick<BlockCache, 'openBlob'>,
    key: BlobKey,
    index: HotIndex,
    indexBytes: number,
    progress: HotProgress,
    isWhole: boolean,
    done: Promise<void>,
  ) {
    this.isWhole = isWhole;
    this.done = done;
    done.catch(() => {});
    this.#cache = cache;
    this.#key = key;
    this.index = index;
    this.indexBytes = indexBytes;
    this.progress = progress;
  }

  /** A handle for one reader, which fetches nothing. */
  async open(): Promise<BlobHandle> {
    return await this.#cache.openBlob(keptSource(this.#key));
  }

  /** Drops the pages. Reads find them in the layers' blobs. */
  async forget(): Promise<void> {
    const handle = await this.open();
    try {
      await handle.forget();
    } finally {
      handle.close();
    }
  }
}

export class HotImages {
  readonly #cache: BlockCache;
  readonly #client: Pick<RegistryClient, 'readBlob'>;
  /** How many streams run, by origin. */
  readonly #streams = new Map<string, number>();

  constructor(cache: BlockCache, client: Pick<RegistryClient, 'readBlob'>) {
    this.#cache = cache;
    this.#client = client;
  }

  /** Finds the pages that an earlier fetch has stored; undefined if there are none of use. */
  async kept(image: HotImageName): Promise<HotImage | undefined> {
    const key = await this.#cache.keyOf(originOf(image), digestOf(image));
    if (key === undefined) return undefined;
    const handle = await this.#cache.openBlob(keptSource(key));
    const reader = new BlobReader(handle.share(), new OverflowChunks(), handle);
    try {
      const length = Buffer.alloc(LENGTH_BYTES);
      if (!reader.isStored(0, LENGTH_BYTES)) return undefined;
      await readFully(reader, length, 0);
      const indexBytes = LENGTH_BYTES + length.readUInt32LE(0);
      if (indexBytes > key.sizeBytes || !reader.isStored(0, indexBytes)) return undefined;
      const bytes = Buffer.alloc(indexBytes);
      await readFully(reader, bytes, 0);
      const index = parseHotIndex(bytes.subarray(LENGTH_BYTES), reader);
      const isAll = pagesAt(indexBytes) + index.pages * PAGE_BYTES === key.sizeBytes;
      if (!isAll || !isOf(index, image.layers)) return undefined;
      // The stream of an earlier start may have ended early.
      const isWhole = handle.cachedBytes >= STORED_SHARE * key.sizeBytes;
      const progress = new HotProgress(index.pages);
      progress.advance(index.pages, 0);
      progress.end();
      const done = Promise.resolve();
      return new HotImage(this.#cache, key, index, indexBytes, progress, isWhole, done);
    } catch (error) {
      // A damaged index: the next fetch replaces the file.
      if (error instanceof ObdError) return undefined;
      throw error;
    } finally {
      reader.close();
    }
  }

  /**
   * Begins to fetch a hot blob, in place of what is stored for the layers. Resolves when its index has come.
   *
   * @param name - Of the image, whose layers prove the pages.
   * @throws {ObdError} `Corrupt` for a blob that is of another image, or does not prove itself; `NoSpace` if the cache has no room
   *   for it; what reading a blob throws.
   */
  async fetch(
    { host, repository, digest, sizeBytes }: HotBlobAddress,
    name: HotImageName,
    signal: AbortSignal,
  ): Promise<HotImage> {
    const label = `${digest} of ${host}/${repository}`;
    if (sizeBytes > HOT_BLOB_BYTES_MAX) {
      const message = `Cannot use ${label}: ${sizeBytes} bytes are more than ${HOT_BLOB_BYTES_MAX}`;
      throw new ObdError(ErrorCodes.Corrupt, message, { digest });
    }
    const origin = originOf(name);
    const endTurn = await this.#turn(origin, signal);
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(tooLate(label)), INDEX_MS_MAX);
    const descriptor = { mediaType: '', digest, size: sizeBytes };
    const either = AbortSignal.any([signal, late.signal]);
    const pieces = this.#client.readBlob(host, repository, descriptor, either);
    const values = readHotBlob(upTo(sizeBytes, pieces, label), name.layers, label);
    try {
      const { value: index } = await values.next();
      clearTimeout(timer);
      if (index === undefined || !('runs' in index)) {
        throw new ObdError(ErrorCodes.Corrupt, `Cannot use ${label}: it has no index`, { digest });
      }
      const head = indexArea(index);
      const indexBytes = head.readUInt32LE(0) + LENGTH_BYTES;
      const key = {
        origin,
        digest: digestOf(name),
        sizeBytes: head.length + index.pages * PAGE_BYTES,
      };
      if (!(await this.#cache.fitsUnasked(key.sizeBytes))) {
        const message = `Cannot keep ${label}: the cache has no room for ${key.sizeBytes} bytes`;
        throw new ObdError(ErrorCodes.NoSpace, message, { digest });
      }
      const progress = new HotProgress(index.pages);
      const earlier = await this.#cache.keyOf(origin, key.digest);
      if (earlier !== undefined && earlier.sizeBytes !== key.sizeBytes) {
        await this.#cache.remove(earlier);
      }
      const source = new HotSource(key, label, head, values);
      const handle = await this.#cache.openBlob(source);
      await handle.forget();
      const done = store(handle, head.length, progress)
        .catch((error: unknown) => {
          throw source.failure ?? error;
        })
        .finally(() => {
          progress.end();
          handle.close();
          void values.return(undefined);
          endTurn();
        });
      return new HotImage(this.#cache, key, index, indexBytes, progress, true, done);
    } catch (error) {
      clearTimeout(timer);
      void values.return(undefined);
      endTurn();
      throw late.signal.aborted ? late.signal.reason : error;
    }
  }

  /** Resolves when the registry has fewer streams than STREAMS_MAX. @returns Ends the turn. @throws the signal's reason. */
  async #turn(origin: string, signal: AbortSignal): Promise<() => void> {
    while ((this.#streams.get(origin) ?? 0) >= STREAMS_MAX) {
      await sleep(TURN_POLL_MS, undefined, { signal, ref: false });
    }
    this.#streams.set(origin, (this.#streams.get(origin) ?? 0) + 1);
    return () => {
      const left = (this.#streams.get(origin) ?? 1) - 1;
      if (left === 0) this.#streams.delete(origin);
      else this.#streams.set(origin, left);
    };
  }
}

function tooLate(label: string): ObdError {
  const message = `Cannot use ${label}: its index has not come within ${INDEX_MS_MAX / 1000} s`;
  return new ObdError(ErrorCodes.Unavailable, message);
}

/** Takes all of the stream into the cache. */
async function store(handle: BlobHandle, head: number, progress: HotProgress): Promise<void> {
  const { sizeBytes } = handle.source.key;
  const startedMs = performance.now();
  for (let offset = 0; offset < sizeBytes; ) {
    const length = Math.min(offset === 0 ? head : WINDOW_BYTES, sizeBytes - offset);
    await handle.fetch(offset, length, { urgency: 'prefetch', waitMs: undefined });
    if (!handle.isStored(Math.floor(offset / CHUNK_BYTES))) {
      const message = `Cannot keep ${handle.source.label}: the disk has no room`;
      throw new ObdError(ErrorCodes.NoSpace, message);
    }
    offset += length;
    const arrived = Math.floor((offset - head) / PAGE_BYTES);
    const seconds = (performance.now() - startedMs) / 1000;
    progress.advance(arrived, arrived / Math.max(0.001, seconds));
  }
}

/** The stream as a source of the cache: what is asked for has to be what comes next. */
class HotSource implements BlobSource {
  readonly key: BlobKey;
  readonly label: string;
  /** Why the stream has ended early. The cache would try again what is unavailable, and a stream has only one attempt. */
  failure: unknown;
  readonly #values: AsyncGenerator<HotIndex | { readonly bytes: Buffer }>;
  /** Bytes that have come, and that no attempt has taken. */
  #rest: Uint8Array;
  #position = 0;

  constructor(
    key: BlobKey,
    label: string,
    head: Uint8Array,
    values: AsyncGenerator<HotIndex | { readonly bytes: Buffer }>,
  ) {
    this.key = key;
    this.label = label;
    this.#rest = head;
    this.#values = values;
  }

  async attempt(fill: RangeFill, { signal }: AttemptOptions = {}): Promise<undefined> {
    if (fill.offset + fill.filled !== this.#position) throw notKept(this.label);
    while (fill.filled < fill.bytes.length) {
      signal?.throwIfAborted();
      if (this.#rest.length === 0) {
        this.#rest = await this.#next();
      }
      const part = this.#rest.subarray(0, fill.bytes.length - fill.filled);
      fill.bytes.set(part, fill.filled);
      this.#rest = this.#rest.subarray(part.length);
      this.#position += part.length;
      fill.filled += part.length;
    }
  }

  async #next(): Promise<Uint8Array> {
    try {
      const { value, done } = await this.#values.next();
      if (done !== true && 'bytes' in value) return value.bytes;
    } catch (error) {
      this.failure = error;
    }
    throw notKept(this.label);
  }
}

/** @throws {ObdError} `Corrupt` for more bytes than the image's artifact names. */
async function* upTo(
  sizeBytes: number,
  pieces: AsyncIterable<Uint8Array>,
  label: string,
): AsyncGenerator<Uint8Array> {
  let received = 0;
  for await (const piece of pieces) {
    received += piece.length;
    if (received > sizeBytes) {
      const message = `Cannot use ${label}: it has more than the ${sizeBytes} bytes that are named`;
      throw new ObdError(ErrorCodes.Corrupt, message);
    }
    yield piece;
  }
}

/** A source for reads of what is here. */
function keptSource(key: BlobKey): BlobSource {
  const label = `hot pages ${key.digest}`;
  return {
    key,
    label,
    attempt: async () => {
      throw notKept(label);
    },
  };
}

/** The code says that it is no registry that fails. */
function notKept(label: string): ObdError {
  const message = `Cannot read ${label}: the cache has evicted it; the layer's blob has the same pages`;
  return new ObdError(ErrorCodes.FailedPrecondition, message);
}

function indexArea(index: HotIndex): Buffer {
  const bytes = encodeHotIndex(index);
  const area = Buffer.alloc(pagesAt(LENGTH_BYTES + bytes.length));
  area.writeUInt32LE(bytes.length, 0);
  area.set(bytes, LENGTH_BYTES);
  return area;
}

/** Whether it is the origin of a file of hot pages, whose name is no digest of its bytes. */
export function isHotPages(origin: string): boolean {
  return origin.startsWith(ORIGIN);
}

/** A registry's own, so that a slow one holds up no other. */
function originOf({ host }: HotImageName): string {
  return `${ORIGIN}${host.replaceAll(/[^A-Za-z0-9.:-]/g, '-')}`;
}

function digestOf({ host, repository, layers, wish }: HotImageName): string {
  const names = layers.map(({ digest, root = '' }) => `${digest}@${root}`).join(' ');
  const name = `hot pages of ${host}/${repository} ${names} ${variantOf(wish)}`;
  return `sha256:${createHash('sha256').update(name).digest('hex')}`;
}

function isOf(index: HotIndex, layers: readonly HotLayerName[]): boolean {
  return index.layers.every(({ digest, root }) =>
    layers.some((layer) => layer.digest === digest && layer.root === root),
  );
}

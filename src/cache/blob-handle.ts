/**
 * One opening of a cached blob, on the cache's thread: the owner's end of one BlobReader's link.
 *
 * A handle has its own source and its own stats; it shares file, bits and fetches with the blob's other handles. A reader
 * on any thread is made of share(), and calls the handle's methods through its link. Closing a handle aborts the fetches
 * that it caused.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { BlobLink, BlobShare } from './blob-reader.js';
import type { BlobSource } from './blob-source.js';
import type { Fetcher, FetchOptions } from './flight.js';
import type { ImageReads, StreamableBlob } from './image-reads.js';
import type { OverflowChunk, OverflowChunks, OverflowCopies } from './overflow-chunks.js';
import { RefetchedRanges } from './refetched-ranges.js';
import type { SharedBlob } from './shared-blob.js';
import { WAITING_MS_MIN, type Waits } from './waiting-reads.js';

/** Counters of one handle and its blob. */
export interface BlobStats {
  /** How many of the blob's bytes are on this disk. */
  readonly cachedBytes: number;
  /** Bytes and requests that reading through this handle caused. */
  readonly fetchedBytes: number;
  readonly fetchRequests: number;
}

/** Sums the stats of several handles. */
export function statsOf(blobs: Iterable<BlobStats>): BlobStats {
  const sum = { cachedBytes: 0, fetchedBytes: 0, fetchRequests: 0 };
  for (const { cachedBytes, fetchedBytes, fetchRequests } of blobs) {
    sum.cachedBytes += cachedBytes;
    sum.fetchedBytes += fetchedBytes;
    sum.fetchRequests += fetchRequests;
  }
  return sum;
}

export class BlobHandle implements BlobLink, BlobStats, Fetcher, StreamableBlob {
  readonly source: BlobSource;
  readonly image: ImageReads | undefined;
  readonly #blob: SharedBlob;
  readonly #overflow: OverflowChunks;
  readonly #onClosed: () => void;
  #onMiss: (chunk: number) => boolean = () => false;
  readonly #refetched = new RefetchedRanges();
  #fetchedBytes = 0;
  #fetchRequests = 0;
  #isClosed = false;

  constructor(
    blob: SharedBlob,
    overflow: OverflowChunks,
    source: BlobSource,
    image: ImageReads | undefined,
    onClosed: () => void,
  ) {
    this.#blob = blob;
    this.#overflow = overflow;
    this.source = source;
    this.image = image;
    image?.add(this);
    this.#onClosed = onClosed;
  }

  get cachedBytes(): number {
    return this.#blob.storedBytes;
  }

  get fetchedBytes(): number {
    return this.#fetchedBytes;
  }

  get fetchRequests(): number {
    return this.#fetchRequests;
  }

  get chunks(): number {
    return this.#blob.chunks;
  }

  get fetchedCount(): number {
    return this.#blob.stored.fetchedCount;
  }

  get readCount(): number {
    return this.#blob.stored.readCount;
  }

  get isSweeping(): boolean {
    return this.#blob.fetches.isSweeping;
  }

  get sweptCount(): number {
    return this.#blob.fetches.sweptCount;
  }

  stream(): void {
    this.#blob.fetches.stream(this);
  }

  onRequest(): void {
    this.#fetchRequests++;
  }

  onBytes(bytes: number): void {
    this.#fetchedBytes += bytes;
  }

  share(): BlobShare {
    const { key, fd, stored } = this.#blob;
    return { key, label: this.source.label, fd, chunks: stored.memory };
  }

  async fetch(offset: number, length: number, options: FetchOptions): Promise<OverflowCopies> {
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = endChunk(offset, length);
    await this.#blob.fetches.load(this, first, end, options);
    const { generation } = this.#blob.stored;
    return { generation, chunks: this.#inMemory(first, end) };
  }

  /** The chunks of [first, end) that found no space on the disk, and are in memory. */
  #inMemory(first: number, end: number): OverflowChunk[] {
    const found: OverflowChunk[] = [];
    if (this.#overflow.isEmpty) return found;
    for (let chunk = first; chunk < end; chunk++) {
      const bytes = this.#overflow.find(this.#blob.key, chunk);
      if (bytes !== undefined) found.push({ chunk, bytes });
    }
    return found;
  }

  /** Removes the chunks of a range, whose bytes failed a check. @returns How many bytes of them were on the disk. */
  invalidate(offset: number, length: number): number {
    const { stored } = this.#blob;
    let chunks = 0;
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < endChunk(offset, length); chunk++) {
      if (stored.delete(chunk)) chunks++;
    }
    this.source.invalidated?.(offset, length);
    this.#blob.invalidated(this.source.label, offset, length);
    return Math.min(chunks * CHUNK_BYTES, this.#blob.sizeBytes);
  }

  /** Drops all chunks: another content is stored under the key from now on. */
  async forget(): Promise<void> {
    this.#blob.invalidate(0, this.#blob.chunks);
    // Both copies of the state on the disk: after a crash neither may name chunks that are overwritten now.
    await this.#blob.save();
    await this.#blob.save();
  }

  /** Changes when chunks were evicted or dropped: what was read before may have been a hole. */
  get generation(): number {
    return this.#blob.stored.generation;
  }

  /** @param onMiss - Called at each miss from now on. If it returns true, the miss fetches no neighbours. */
  onMiss(onMiss: (chunk: number) => boolean): void {
    this.#onMiss = onMiss;
  }

  missed(chunk: number): boolean {
    return this.#onMiss(chunk);
  }

  /** Whether the chunk is on the disk. */
  isStored(chunk: number): boolean {
    return this.#blob.stored.has(chunk);
  }

  /** Whether the chunk is on the disk, and was read since it was fetched. */
  isRead(chunk: number): boolean {
    return this.#blob.stored.isRead(chunk);
  }

  /** The first range from `offset` on that is not on the disk, of at most `bytesMax`; undefined if there is none. */
  missingFrom(
    offset: number,
    bytesMax: number,
  ): { readonly offset: number; readonly length: number } | undefined {
    const { stored, sizeBytes } = this.#blob;
    let first = Math.floor(offset / CHUNK_BYTES);
    while (first < stored.chunks && stored.has(first)) first++;
    if (first === stored.chunks) return undefined;
    const endMax = Math.min(stored.chunks, first + Math.ceil(bytesMax / CHUNK_BYTES));
    let end = first + 1;
    while (end < endMax && !stored.has(end)) end++;
    const from = first * CHUNK_BYTES;
    return { offset: from, length: Math.min(end * CHUNK_BYTES, sizeBytes) - from };
  }

  /** How many reads through this handle wait, and for how long. */
  waits(): Waits {
    const fetching = this.#blob.fetches.waitsOf(this);
    const refetching = this.#refetched.waits(WAITING_MS_MIN);
    if (refetching.reads === 0) return fetching;
    return {
      reads: fetching.reads + refetching.reads,
      ms: Math.max(fetching.ms, refetching.ms),
      error: fetching.error ?? failedChecks(this.source.label),
    };
  }

  invalidated(offset: number, length: number): void {
    this.#refetched.invalidated(offset, length);
    this.source.invalidated?.(offset, length);
    this.#blob.invalidated(this.source.label, offset, length);
  }

  unreadable(offset: number, length: number, problem: string): void {
    this.#blob.unreadable(offset, length, problem);
  }

  /** Ends the reads under way through this handle, and the fetches that it caused and no other handle waits for. */
  endFetches(): void {
    this.#blob.fetches.withdraw(this);
  }

  /** Idempotent. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.image?.delete(this);
    this.#blob.fetches.dismiss(this);
    this.#onClosed();
  }
}

function failedChecks(label: string): ObdError {
  const problem = 'fetched bytes fail their check; fetching them again';
  return new ObdError(ErrorCodes.Corrupt, `Cannot read ${label}: ${problem}`);
}

function endChunk(offset: number, length: number): number {
  return Math.ceil((offset + length) / CHUNK_BYTES);
}

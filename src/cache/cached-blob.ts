/**
 * A remote blob as a RandomAccessFile: hits are read from the cache, misses are fetched into it.
 *
 * A handle has its own connection to the registry, repository and credentials; it shares file, bits and fetches with
 * the blob's other handles. Closing a handle aborts the fetches it caused.
 *
 * The cache's own thread can read a handle, and so can one other thread: that thread makes a BlobReader of share(), and
 * links it to the handle's methods.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { BlobRanges } from '../registry/blob-ranges.js';
import { WAITING_MS_MIN } from './blob-fetches.js';
import { type BlobLink, BlobReader, type BlobShare } from './blob-reader.js';
import { CHUNK_BYTES } from './chunk-set.js';
import type { Fetcher, Waits } from './flight.js';
import type { HeldChunk, HeldChunks, HeldCopies } from './held-chunks.js';
import { RefetchedRanges } from './refetched-ranges.js';
import type { SharedBlob } from './shared-blob.js';

/** Figures of one handle and its blob. */
export interface BlobFigures {
  /** How many of the blob's bytes are on this disk. */
  readonly cachedBytes: number;
  /** Bytes and requests that reading through this handle caused. */
  readonly fetchedBytes: number;
  readonly fetchRequests: number;
}

/** The methods of BlobLink, except closed(), serve the reader on another thread, which must end before close(). */
export interface CachedBlob extends RandomAccessFile, BlobFigures, Omit<BlobLink, 'closed'> {
  share(): BlobShare;
  /** How many reads through this handle wait, and for how long. */
  waits(): Waits;
}

/** Sums the figures of several handles. */
export function figuresOf(blobs: Iterable<BlobFigures>): BlobFigures {
  const sum = { cachedBytes: 0, fetchedBytes: 0, fetchRequests: 0 };
  for (const { cachedBytes, fetchedBytes, fetchRequests } of blobs) {
    sum.cachedBytes += cachedBytes;
    sum.fetchedBytes += fetchedBytes;
    sum.fetchRequests += fetchRequests;
  }
  return sum;
}

export class BlobHandle implements CachedBlob, Fetcher {
  readonly ranges: BlobRanges;
  readonly #blob: SharedBlob;
  readonly #held: HeldChunks;
  readonly #reader: BlobReader;
  readonly #refetched = new RefetchedRanges();
  #fetchedBytes = 0;
  #fetchRequests = 0;

  /** @throws system errors. */
  constructor(blob: SharedBlob, held: HeldChunks, ranges: BlobRanges, onClosed: () => void) {
    this.ranges = ranges;
    this.#blob = blob;
    this.#held = held;
    const closed = () => {
      this.#blob.fetches.dismiss(this);
      onClosed();
    };
    this.#reader = new BlobReader(this.share(), held, false, {
      fetch: async (offset, length, waitMs) => {
        await this.#fetch(offset, length, waitMs);
        return undefined;
      },
      distrusted: (offset, length) => this.distrusted(offset, length),
      lost: (offset, length, problem) => this.lost(offset, length, problem),
      closed,
    });
  }

  get label(): string {
    return this.ranges.label;
  }

  get sizeBytes(): number {
    return this.#blob.sizeBytes;
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

  onRequest(): void {
    this.#fetchRequests++;
  }

  onBytes(bytes: number): void {
    this.#fetchedBytes += bytes;
  }

  readLocal(target: Uint8Array, offset: number): boolean {
    return this.#reader.readLocal(target, offset);
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    await this.#reader.load(offset, length, deadlineMs);
  }

  forget(offset: number, length: number): boolean {
    return this.#reader.forget(offset, length);
  }

  close(): void {
    this.#reader.close();
  }

  share(): BlobShare {
    const { registry, digest, sizeBytes, fd, stored } = this.#blob;
    return { label: this.label, registry, digest, sizeBytes, fd, chunks: stored.memory };
  }

  async fetch(offset: number, length: number, waitMs: number | undefined): Promise<HeldCopies> {
    await this.#fetch(offset, length, waitMs);
    const { generation } = this.#blob.stored;
    return { generation, chunks: this.#heldOf(offset, length) };
  }

  async #fetch(offset: number, length: number, waitMs: number | undefined): Promise<void> {
    const first = Math.floor(offset / CHUNK_BYTES);
    await this.#blob.fetches.load(this, first, endChunk(offset, length), waitMs);
  }

  waits(): Waits {
    const fetching = this.#blob.fetches.waitsOf(this);
    const refetching = this.#refetched.waits(WAITING_MS_MIN);
    if (refetching.reads === 0) return fetching;
    return {
      reads: fetching.reads + refetching.reads,
      ms: Math.max(fetching.ms, refetching.ms),
      error: fetching.error ?? failedChecks(this.label),
    };
  }

  /** The chunks of that range that found no room on the disk, and are in memory. */
  #heldOf(offset: number, length: number): HeldChunk[] {
    const found: HeldChunk[] = [];
    if (this.#held.isEmpty) return found;
    const end = endChunk(offset, length);
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < end; chunk++) {
      const bytes = this.#held.find(this.#blob, chunk);
      if (bytes !== undefined) found.push({ chunk, bytes });
    }
    return found;
  }

  distrusted(offset: number, length: number): void {
    this.#refetched.dropped(offset, length);
    this.#blob.distrusted(this.label, offset, length);
  }

  lost(offset: number, length: number, problem: string): void {
    this.#blob.lost(offset, length, problem);
  }
}

function failedChecks(label: string): ObdError {
  const problem = 'what the registry sends fails its check; it is fetched again and again';
  return new ObdError(ErrorCodes.Corrupt, `Cannot read ${label}: ${problem}`);
}

function endChunk(offset: number, length: number): number {
  return Math.ceil((offset + length) / CHUNK_BYTES);
}

/**
 * Per-thread read handle for a cached blob.
 *
 * All threads share the cache file's descriptor and the set of chunks in it (chunk-set.ts), so a hit needs no other
 * thread. A miss goes through a BlobLink to the thread that owns the cache. Each thread that requested chunks without
 * space on the disk keeps copies of them in its memory.
 *
 * Cost of a hit: two loads of the generation, two look-ups of each chunk's bits, and one preadv2. Reads that overlap an
 * eviction start over (chunk-set.ts).
 */
import { messageOf } from '../errors.js';
import { CHUNK_BYTES, type RandomAccessFile, type StoredRange } from '../io/random-access-file.js';
import { ResidentFile } from '../io/resident-file.js';
import type { BlobKey } from './blob-key.js';
import { ChunkSet } from './chunk-set.js';
import type { FetchOptions } from './flight.js';
import type { OverflowChunks, OverflowCopies } from './overflow-chunks.js';

/** Describes an open blob of the cache to another thread. Valid while the blob stays open in the cache. */
export interface BlobShare {
  readonly key: BlobKey;
  /** For messages. */
  readonly label: string;
  /** Open for reading; undefined where the disk had no space for a file. */
  readonly fd: number | undefined;
  /** The memory of the ChunkSet. */
  readonly chunks: SharedArrayBuffer;
}

/** Connects a reader to the thread that owns the cache. Requests and notices arrive in the order they were sent. */
export interface BlobLink {
  /**
   * Resolves once the range is in the cache file, or in memory.
   *
   * @returns Copies of the chunks that are in the cache's memory; undefined if the blob was closed first.
   * @throws {ObdError} what fetching throws.
   */
  fetch(offset: number, length: number, options: FetchOptions): Promise<OverflowCopies | undefined>;
  /** The chunks of that range failed a check; the reader has removed them from the set. */
  invalidated(offset: number, length: number): void;
  /** The disk cannot read that range; the reader has removed its chunks from the set. */
  unreadable(offset: number, length: number, problem: string): void;
  /** Ends the reader's fetches. Called once. */
  close(): void;
}

export class BlobReader implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #key: BlobKey;
  readonly #chunks: ChunkSet;
  readonly #file: ResidentFile | undefined;
  readonly #overflow: OverflowChunks;
  readonly #link: BlobLink;
  /** Whether its reads show what a device reads. */
  readonly #countsReads: boolean;
  /** The generation in which every block that #file has in memory was read, or its load began. */
  #generation: number;
  #isOpening = true;
  #closed = false;

  /**
   * @param overflow - The copies that this thread's readers share.
   * @param countsReads - Whether chunks count as read, and as used, that it reads: not those of a check.
   * @throws system errors.
   */
  constructor(
    { key, label, fd, chunks }: BlobShare,
    overflow: OverflowChunks,
    link: BlobLink,
    countsReads = true,
  ) {
    this.label = label;
    this.sizeBytes = key.sizeBytes;
    this.#key = key;
    this.#chunks = new ChunkSet(Math.ceil(key.sizeBytes / CHUNK_BYTES), chunks);
    this.#generation = this.#chunks.generation;
    this.#file = fd === undefined ? undefined : new ResidentFile(fd, key.digest);
    this.#overflow = overflow;
    this.#link = link;
    this.#countsReads = countsReads;
  }

  get digest(): string {
    return this.#key.digest;
  }

  /** The image is open. The chunks needed until now are needed again to open it, and are evicted last. */
  opened(): void {
    this.#isOpening = false;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    this.#check(offset, target.length);
    if (target.length === 0) return true;
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + target.length) / CHUNK_BYTES);
    for (;;) {
      this.#enterGeneration();
      let isRead: boolean;
      if (this.#chunks.hasAll(first, end)) isRead = this.#readFile(target, offset);
      else isRead = this.#overflow.isEmpty ? false : this.#readMixed(target, offset, end);
      if (this.#chunks.generation !== this.#generation) continue;
      if (isRead && this.#countsReads) this.#chunks.read(first, end);
      if (isRead && this.#isOpening) this.#chunks.markOpening(first, end);
      return isRead;
    }
  }

  /**
   * Call it before checking bits. Invalidates blocks in memory that an eviction may have turned into zeroes, and copies of
   * chunks that another reader may have invalidated.
   */
  #enterGeneration(): void {
    const { generation } = this.#chunks;
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#file?.invalidateAll();
    this.#overflow.deleteAll(this.#key);
  }

  /** Reads chunk by chunk, because some may be in memory only. */
  #readMixed(target: Uint8Array, offset: number, endChunk: number): boolean {
    for (let at = offset; at < offset + target.length; ) {
      const chunk = Math.floor(at / CHUNK_BYTES);
      const start = chunk * CHUNK_BYTES;
      const to = chunk + 1 === endChunk ? offset + target.length : start + CHUNK_BYTES;
      const part = target.subarray(at - offset, to - offset);
      const inMemory = this.#overflow.find(this.#key, chunk);
      if (inMemory !== undefined) part.set(inMemory.subarray(at - start, to - start));
      else if (!this.#chunks.has(chunk) || !this.#readFile(part, at)) return false;
      at = to;
    }
    return true;
  }

  #readFile(target: Uint8Array, offset: number): boolean {
    try {
      return this.#file!.tryRead(target, offset);
    } catch (error) {
      this.#invalidateUnreadable(offset, target.length, error);
      return false;
    }
  }

  /** Invalidates a range that the disk cannot read: the source has another copy. */
  #invalidateUnreadable(offset: number, length: number, error: unknown): void {
    this.#invalidate(offset, length);
    this.#link.unreadable(offset, length, messageOf(error));
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    this.#check(offset, length);
    if (length === 0) return;
    this.#enterGeneration();
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    if (this.#isOpening) this.#chunks.markOpening(first, end);
    for (let chunk = first; chunk < end; chunk++) {
      if (this.#chunks.has(chunk) || this.#overflow.find(this.#key, chunk) !== undefined) continue;
      const waitMs = deadlineMs === undefined ? undefined : deadlineMs - performance.now();
      this.#keepCopies(await this.#link.fetch(offset, length, { urgency: 'demand', waitMs }));
      return;
    }
    await Promise.all(this.#runsOf(first, end).map((run) => this.#loadFile(run.first, run.end)));
  }

  /**
   * Fetches what is missing of a range, and delays no read. Later reads of it find it on the disk.
   *
   * @throws {ObdError} as load() without a deadline.
   */
  async fetchInBackground(offset: number, length: number): Promise<void> {
    if (length === 0 || this.isStored(offset, length)) return;
    this.#enterGeneration();
    const options = { urgency: 'background', waitMs: undefined } as const;
    this.#keepCopies(await this.#link.fetch(offset, length, options));
  }

  #keepCopies(copies: OverflowCopies | undefined): void {
    if (copies === undefined || this.#closed) return;
    this.#enterGeneration();
    if (copies.generation !== this.#generation) return;
    for (const { chunk, bytes } of copies.chunks) this.#overflow.add(this.#key, chunk, bytes);
  }

  /** The runs of [first, end) that are in the file. Holes are left out: later stores may fill them. */
  #runsOf(first: number, end: number): { first: number; end: number }[] {
    const runs: { first: number; end: number }[] = [];
    for (let chunk = first; chunk < end; chunk++) {
      if (!this.#chunks.has(chunk)) continue;
      const last = runs.at(-1);
      if (last?.end === chunk) last.end++;
      else runs.push({ first: chunk, end: chunk + 1 });
    }
    return runs;
  }

  async #loadFile(first: number, end: number): Promise<void> {
    const offset = first * CHUNK_BYTES;
    const length = Math.min(end * CHUNK_BYTES, this.sizeBytes) - offset;
    try {
      await this.#file!.load(offset, length);
    } catch (error) {
      if (!this.#closed) this.#invalidateUnreadable(offset, length, error);
    }
  }

  /** True: the source has another copy. */
  invalidate(offset: number, length: number): boolean {
    this.#check(offset, length);
    if (length === 0) return true;
    this.#invalidate(offset, length);
    this.#link.invalidated(offset, length);
    return true;
  }

  /** Removes the chunks that the range touches. */
  #invalidate(offset: number, length: number): void {
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = first; chunk < end; chunk++) {
      this.#overflow.delete(this.#key, chunk);
      this.#chunks.delete(chunk);
    }
    // Now, not when the cache's thread has the notice: no thread may take a copy in its memory for the bytes fetched next.
    this.#chunks.nextGeneration();
    this.#file?.invalidate(first * CHUNK_BYTES, (end - first) * CHUNK_BYTES);
  }

  /** Whether all of the range is on the disk. */
  isStored(offset: number, length: number): boolean {
    this.#check(offset, length);
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    return this.#chunks.hasAll(Math.floor(offset / CHUNK_BYTES), end);
  }

  storedRanges(offset: number, length: number): readonly StoredRange[] {
    this.#check(offset, length);
    return [{ blob: this, offset, length }];
  }

  versionOf(chunk: number): number {
    return this.#chunks.versionOf(chunk);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file?.close();
    this.#overflow.deleteAll(this.#key);
    this.#link.close();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new TypeError(`${this.label} is closed`);
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside ${this.label}`);
    }
  }
}

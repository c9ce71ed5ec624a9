/**
 * Per-thread read handle for a cached blob.
 *
 * All threads share the cache file's descriptor and the set of chunks in it (chunk-set.ts), so a hit needs no other
 * thread. A miss goes through a BlobLink to the thread that owns the cache. Chunks that found no room on the disk are in
 * the memory of each thread that requested them.
 *
 * Cost of a hit: two loads of the generation, two look-ups of each chunk's bits, and one preadv2. Reads that overlap an
 * eviction start over (chunk-set.ts).
 */
import { messageOf } from '../errors.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { ResidentFile } from '../io/resident-file.js';
import type { BlobIdentity } from './blob-slot.js';
import type { BlobName } from './cache-directory.js';
import { CHUNK_BYTES, ChunkSet } from './chunk-set.js';
import type { HeldChunks, HeldCopies } from './held-chunks.js';

/** Describes an open blob of the cache to another thread. Valid while the blob stays open in the cache. */
export interface BlobShare extends BlobName, BlobIdentity {
  readonly label: string;
  /** Open for reading; undefined where there was no room for a file. */
  readonly fd: number | undefined;
  /** The memory of the ChunkSet. */
  readonly chunks: SharedArrayBuffer;
}

/** Connects a reader to the thread that owns the cache. Requests and notices arrive in the order they were sent. */
export interface BlobLink {
  /**
   * Resolves once the range is in the cache file, or in memory.
   * @param waitMs - How long it may take; undefined while an image is opened.
   * @returns Copies of what is in memory, for another thread than the cache's.
   * @throws {ObdError} what fetching throws.
   */
  fetch(
    offset: number,
    length: number,
    waitMs: number | undefined,
  ): Promise<HeldCopies | undefined>;
  /** The chunks of that range failed a check; the reader has removed them from the set. */
  distrusted(offset: number, length: number): void;
  /** The disk cannot read that range; the reader has removed its chunks from the set. */
  lost(offset: number, length: number, problem: string): void;
  /** The reader reads no more. Sent once. */
  closed(): void;
}

export class BlobReader implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #blob: BlobShare;
  readonly #chunks: ChunkSet;
  readonly #file: ResidentFile | undefined;
  readonly #held: HeldChunks;
  /** Whether #held has copies for this thread, rather than being the cache's own. */
  readonly #holdsCopies: boolean;
  readonly #link: BlobLink;
  /** The generation in which every block that #file has in memory was read, or its load began. */
  #generation: number;
  #closed = false;

  /**
   * @param held - On the cache's thread its own; on any other one of that thread.
   * @throws system errors.
   */
  constructor(blob: BlobShare, held: HeldChunks, holdsCopies: boolean, link: BlobLink) {
    this.label = blob.label;
    this.sizeBytes = blob.sizeBytes;
    this.#blob = blob;
    this.#chunks = new ChunkSet(Math.ceil(blob.sizeBytes / CHUNK_BYTES), blob.chunks);
    this.#generation = this.#chunks.generation;
    this.#file = blob.fd === undefined ? undefined : new ResidentFile(blob.fd, blob.digest);
    this.#held = held;
    this.#holdsCopies = holdsCopies;
    this.#link = link;
  }

  readLocal(target: Uint8Array, offset: number): boolean {
    this.#check(offset, target.length);
    if (target.length === 0) return true;
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + target.length) / CHUNK_BYTES);
    for (;;) {
      this.#enterGeneration();
      let isRead: boolean;
      if (this.#chunks.hasAll(first, end)) isRead = this.#readFile(target, offset);
      else isRead = this.#held.isEmpty ? false : this.#readMixed(target, offset, end);
      if (this.#chunks.generation !== this.#generation) continue;
      if (isRead) this.#chunks.touch(first, end);
      return isRead;
    }
  }

  /**
   * Call it before checking bits. Invalidates blocks in memory that an eviction may have turned into zeroes, and copies of
   * chunks that may have been dropped as wrong.
   */
  #enterGeneration(): void {
    const { generation } = this.#chunks;
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#file?.forgetAll();
    if (this.#holdsCopies) this.#held.dropAll(this.#blob);
  }

  /** Reads chunk by chunk, because some may be held in memory. */
  #readMixed(target: Uint8Array, offset: number, endChunk: number): boolean {
    for (let at = offset; at < offset + target.length; ) {
      const chunk = Math.floor(at / CHUNK_BYTES);
      const start = chunk * CHUNK_BYTES;
      const to = chunk + 1 === endChunk ? offset + target.length : start + CHUNK_BYTES;
      const part = target.subarray(at - offset, to - offset);
      const held = this.#held.find(this.#blob, chunk);
      if (held !== undefined) part.set(held.subarray(at - start, to - start));
      else if (!this.#chunks.has(chunk) || !this.#readFile(part, at)) return false;
      at = to;
    }
    return true;
  }

  #readFile(target: Uint8Array, offset: number): boolean {
    try {
      return this.#file!.readNow(target, offset);
    } catch (error) {
      this.#lose(offset, target.length, error);
      return false;
    }
  }

  /** Drops a range that the disk cannot read: the registry has another copy. */
  #lose(offset: number, length: number, error: unknown): void {
    this.#drop(offset, length);
    this.#link.lost(offset, length, messageOf(error));
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    this.#check(offset, length);
    if (length === 0) return;
    this.#enterGeneration();
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = first; chunk < end; chunk++) {
      if (this.#chunks.has(chunk) || this.#held.find(this.#blob, chunk) !== undefined) continue;
      const waitMs = deadlineMs === undefined ? undefined : deadlineMs - performance.now();
      this.#hold(await this.#link.fetch(offset, length, waitMs));
      return;
    }
    await Promise.all(this.#runsOf(first, end).map((run) => this.#loadFile(run.first, run.end)));
  }

  #hold(copies: HeldCopies | undefined): void {
    if (copies === undefined || this.#closed) return;
    this.#enterGeneration();
    if (copies.generation !== this.#generation) return;
    for (const { chunk, bytes } of copies.chunks) this.#held.hold(this.#blob, chunk, bytes);
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
      if (!this.#closed) this.#lose(offset, length, error);
    }
  }

  /** True: the registry has another copy. */
  forget(offset: number, length: number): boolean {
    this.#check(offset, length);
    if (length === 0) return true;
    this.#drop(offset, length);
    this.#link.distrusted(offset, length);
    return true;
  }

  /** Drops the chunks that the range touches. */
  #drop(offset: number, length: number): void {
    const first = Math.floor(offset / CHUNK_BYTES);
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = first; chunk < end; chunk++) {
      this.#held.drop(this.#blob, chunk);
      this.#chunks.delete(chunk);
    }
    this.#file?.forget(first * CHUNK_BYTES, (end - first) * CHUNK_BYTES);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file?.close();
    if (this.#holdsCopies) this.#held.dropAll(this.#blob);
    this.#link.closed();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new TypeError(`${this.label} is closed`);
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside ${this.label}`);
    }
  }
}

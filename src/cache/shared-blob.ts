/**
 * The state of a cached blob that all its handles share: the file on disk, the fetches in flight, and the
 * chunks that found no room. BlobReaders (blob-reader.ts) read it, on this thread and on others.
 */
import { readSync } from 'node:fs';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { BlobFetches } from './blob-fetches.js';
import type { BlobFile } from './blob-file.js';
import type { BlobKey } from './blob-key.js';
import type { CacheRoom } from './cache-room.js';
import { ChunkSet } from './chunk-set.js';
import type { ChunkStore } from './chunk-store.js';
import { ClockHand } from './eviction.js';
import type { FetchScheduler } from './fetch-scheduler.js';
import type { OverflowChunks } from './overflow-chunks.js';
import type { SourceOutages } from './source-outages.js';

/** The parts of the cache that all its blobs share. */
export interface CacheServices {
  readonly scheduler: FetchScheduler;
  readonly outages: SourceOutages;
  readonly overflow: OverflowChunks;
  readonly room: Pick<CacheRoom, 'reserve' | 'release' | 'evict' | 'unaskedBytesMax' | 'freeBytes'>;
  /** A store failed for this reason. Called for every failure. */
  full(fault: ObdError): void;
  /** Storing works. */
  stored(): void;
  /** The blob's set of chunks has unsaved changes. */
  changed(blob: SharedBlob): void;
  /** A fault that the cache survived. */
  report(fault: ObdError): void;
}

export class SharedBlob implements ChunkStore {
  readonly key: BlobKey;
  readonly chunks: number;
  /** The chunks that are on the disk. */
  readonly stored: ChunkSet;
  readonly fetches: BlobFetches;
  readonly #services: CacheServices;
  readonly #file: BlobFile | undefined;
  readonly #hand: ClockHand;
  /** Whether the last chunks found room. */
  #hasSpace = true;
  /** Whether the file system can give back a part of a file. */
  #canPunch = true;

  /** @param file - Undefined where there is no room even for an empty one: then nothing is stored. */
  constructor(services: CacheServices, key: BlobKey, file: BlobFile | undefined) {
    this.key = key;
    this.chunks = Math.ceil(key.sizeBytes / CHUNK_BYTES);
    this.#services = services;
    this.#file = file;
    this.stored = file?.chunks ?? new ChunkSet(this.chunks);
    this.fetches = new BlobFetches(this, services.scheduler, services.outages);
    this.#hand = new ClockHand(this.stored);
  }

  get sizeBytes(): number {
    return this.key.sizeBytes;
  }

  get canEvict(): boolean {
    return this.#canPunch && this.#file !== undefined;
  }

  get hasOrdinary(): boolean {
    return this.stored.hasOrdinary();
  }

  /**
   * Evicts chunks that were not used lately.
   * @param takesOpening - Opening chunks too.
   * @returns Bytes given back, `bytes` or more if there are so many.
   */
  async evict(bytes: number, takesOpening: boolean): Promise<number> {
    if (this.#file === undefined || !this.#canPunch) return 0;
    const victims = this.#hand.victims(bytes, takesOpening);
    if (victims.length === 0) return 0;
    try {
      return (await this.#file.evict(victims)) * CHUNK_BYTES;
    } catch (error) {
      if (systemCode(error) === 'EOPNOTSUPP') this.#canPunch = false;
      else this.#report(ErrorCodes.Io, `Cannot evict chunks of ${this.key.digest}`, error);
      return 0;
    } finally {
      this.#services.changed(this);
    }
  }

  /** How many of this blob's bytes are on the disk. */
  get storedBytes(): number {
    const { stored } = this;
    if (stored.count === 0) return 0;
    const missingOfLast = this.chunks * CHUNK_BYTES - this.sizeBytes;
    return stored.count * CHUNK_BYTES - (stored.has(this.chunks - 1) ? missingOfLast : 0);
  }

  /** The descriptor that readers use. */
  get fd(): number | undefined {
    return this.#file?.fd;
  }

  get hasSpace(): boolean {
    return this.#hasSpace && this.#file !== undefined;
  }

  isRead(chunk: number): boolean {
    return this.stored.isRead(chunk);
  }

  isCached(chunk: number): boolean {
    return this.stored.has(chunk) || this.#services.overflow.find(this.key, chunk) !== undefined;
  }

  /** A reader invalidated bytes that failed a check of their format; `label` names the blob and its source. */
  invalidated(label: string, offset: number, length: number): void {
    const message = `Fetching ${length} bytes of ${label} at ${offset} again: they failed a check`;
    const details = { digest: this.key.digest, offset, length };
    this.#services.report(new ObdError(ErrorCodes.Corrupt, message, details));
    this.#afterInvalidation(offset, length);
  }

  /** A reader invalidated bytes that the disk cannot read. */
  unreadable(offset: number, length: number, problem: string): void {
    this.#report(
      ErrorCodes.Io,
      `Cannot read cached bytes of ${this.key.digest} at ${offset}`,
      problem,
    );
    this.#afterInvalidation(offset, length);
  }

  /** A reader, perhaps on another thread, removed the chunks from the set; they may be cached again by now. */
  #afterInvalidation(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < end; chunk++) {
      this.#services.overflow.delete(this.key, chunk);
    }
    // Other threads invalidate their copies in memory too.
    this.stored.nextGeneration();
    this.#services.changed(this);
  }

  get freeBytes(): number {
    return this.#services.room.freeBytes;
  }

  get unaskedBytesMax(): number {
    return this.#services.room.unaskedBytesMax;
  }

  damaged(chunk: number): void {
    const offset = chunk * CHUNK_BYTES;
    const problem = 'its source has others, which match the digest';
    this.#report(
      ErrorCodes.Corrupt,
      `Invalidating cached bytes of ${this.key.digest} at ${offset}`,
      problem,
    );
  }

  isEmpty(): boolean {
    return this.stored.count === 0;
  }

  agrees(chunk: number, bytes: Uint8Array): boolean | undefined {
    const inMemory = this.#services.overflow.find(this.key, chunk);
    if (inMemory !== undefined) return Buffer.from(inMemory).equals(bytes);
    if (this.fd === undefined || !this.stored.has(chunk)) return undefined;
    const stored = Buffer.alloc(bytes.length);
    try {
      const read = readSync(this.fd, stored, 0, stored.length, chunk * CHUNK_BYTES);
      return read !== stored.length || stored.equals(bytes);
    } catch {
      // A reader gets the same error, and reports it.
      return true;
    }
  }

  invalidate(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) {
      this.#services.overflow.delete(this.key, chunk);
      this.stored.delete(chunk);
    }
    // All threads invalidate their copies in memory too.
    this.stored.nextGeneration();
    this.#services.changed(this);
  }

  async keep(first: number, bytes: Uint8Array): Promise<void> {
    this.#hasSpace = await this.#store(first, bytes);
    if (this.#hasSpace) {
      this.#services.changed(this);
      return;
    }
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      const chunk = first + at / CHUNK_BYTES;
      this.#services.overflow.add(this.key, chunk, bytes.subarray(at, at + CHUNK_BYTES));
    }
  }

  /** @returns False if there is no room, or the disk fails. */
  async #store(first: number, bytes: Uint8Array): Promise<boolean> {
    if (this.#file === undefined) return false;
    const doing = `Cannot store ${bytes.length} bytes of ${this.key.digest}`;
    const { room } = this.#services;
    const answer = await room.reserve(bytes.length);
    if (answer === 'never') {
      const problem =
        'nothing is left to evict within cache_size and cache_reserve; free disk space';
      this.#services.full(this.#fault(ErrorCodes.NoSpace, doing, problem));
    }
    if (answer !== 'now') return false;
    let storedBytes = 0;
    try {
      await this.#storeEvicting(this.#file, first, bytes);
      storedBytes = bytes.length;
      this.#services.stored();
      return true;
    } catch (error) {
      const code = isDiskFull(error) ? ErrorCodes.NoSpace : ErrorCodes.Io;
      this.#services.full(this.#fault(code, doing, error));
      return false;
    } finally {
      room.release(bytes.length, storedBytes);
    }
  }

  /** The disk may have less room than it says: a quota, or another writer. */
  async #storeEvicting(file: BlobFile, first: number, bytes: Uint8Array): Promise<void> {
    for (;;) {
      try {
        await file.store(first, bytes);
        return;
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        if ((await this.#services.room.evict(bytes.length)) === 0) throw error;
      }
    }
  }

  /** Saves the set of chunks to the disk; if the disk fails, the set loses the newest ones. */
  async save(): Promise<void> {
    if (this.#file === undefined) return;
    try {
      await this.#file.save();
    } catch (error) {
      this.#report(ErrorCodes.Io, `Cannot save the state of ${this.key.digest}`, error);
    }
  }

  /** Call it when no handle and no fetch is left. Never fails. */
  async close(): Promise<void> {
    this.#services.overflow.deleteAll(this.key);
    try {
      await this.#file?.close();
    } catch (error) {
      this.#report(ErrorCodes.Io, `Cannot close the cache file of ${this.key.digest}`, error);
    }
  }

  #report(code: ObdError['code'], doing: string, cause: unknown): void {
    this.#services.report(this.#fault(code, doing, cause));
  }

  #fault(code: ObdError['code'], doing: string, cause: unknown): ObdError {
    const message = typeof cause === 'string' ? cause : messageOf(cause);
    return new ObdError(code, `${doing}: ${message}`, { digest: this.key.digest }, cause);
  }
}

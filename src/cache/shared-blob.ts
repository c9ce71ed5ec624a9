/**
 * The state of a cached blob that all its handles share: the file on disk, the fetches in flight, and the
 * chunks that found no room. BlobReaders (blob-reader.ts) read it, on this thread and on others.
 */
import { readSync } from 'node:fs';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { BlobFetches } from './blob-fetches.js';
import type { BlobFile } from './blob-file.js';
import type { BlobIdentity } from './blob-slot.js';
import type { BlobName } from './cache-directory.js';
import type { CacheRoom } from './cache-room.js';
import { CHUNK_BYTES, ChunkSet } from './chunk-set.js';
import type { ChunkStore } from './chunk-store.js';
import { ClockHand } from './eviction.js';
import type { FetchScheduler } from './fetch-scheduler.js';
import type { HeldChunks } from './held-chunks.js';
import type { RegistryOutages } from './registry-outages.js';

/** The services that a blob uses of its cache. */
export interface BlobHome {
  readonly scheduler: FetchScheduler;
  readonly outages: RegistryOutages;
  readonly held: HeldChunks;
  readonly room: Pick<CacheRoom, 'reserve' | 'release' | 'evict' | 'unaskedBytesMax'>;
  /** A store failed for this reason. Called for every failure. */
  full(fault: ObdError): void;
  /** Storing works. */
  stored(): void;
  /** The blob's set of chunks has unsaved changes. */
  changed(blob: SharedBlob): void;
  /** A fault that was survived. */
  report(fault: ObdError): void;
}

export class SharedBlob implements ChunkStore {
  readonly registry: string;
  readonly digest: string;
  readonly sizeBytes: number;
  readonly chunks: number;
  /** The chunks that are on the disk. */
  readonly stored: ChunkSet;
  readonly fetches: BlobFetches;
  readonly #home: BlobHome;
  readonly #file: BlobFile | undefined;
  readonly #hand: ClockHand;
  /** Whether the last chunks found room. */
  #roomy = true;
  /** Whether the file system can give back a part of a file. */
  #canPunch = true;

  /** @param file - Undefined where there is no room even for an empty one: then nothing is stored. */
  constructor(
    home: BlobHome,
    { registry, digest, sizeBytes }: BlobName & BlobIdentity,
    file: BlobFile | undefined,
  ) {
    this.registry = registry;
    this.digest = digest;
    this.sizeBytes = sizeBytes;
    this.chunks = Math.ceil(sizeBytes / CHUNK_BYTES);
    this.#home = home;
    this.#file = file;
    this.stored = file?.chunks ?? new ChunkSet(this.chunks);
    this.fetches = new BlobFetches(this, home.scheduler, home.outages);
    this.#hand = new ClockHand(this.stored);
  }

  get canEvict(): boolean {
    return this.#canPunch && this.#file !== undefined;
  }

  /** Evicts chunks that were not used lately. @returns Bytes given back, `bytes` or more if there are so many. */
  async evict(bytes: number): Promise<number> {
    if (this.#file === undefined || !this.#canPunch) return 0;
    const victims = this.#hand.victims(bytes);
    if (victims.length === 0) return 0;
    try {
      return (await this.#file.evict(victims)) * CHUNK_BYTES;
    } catch (error) {
      if (systemCode(error) === 'EOPNOTSUPP') this.#canPunch = false;
      else this.#report(ErrorCodes.Io, `Cannot evict chunks of ${this.digest}`, error);
      return 0;
    } finally {
      this.#home.changed(this);
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

  get roomy(): boolean {
    return this.#roomy && this.#file !== undefined;
  }

  isHere(chunk: number): boolean {
    return this.stored.has(chunk) || this.#home.held.find(this, chunk) !== undefined;
  }

  /** A reader dropped bytes that failed a check further up; `label` names the blob and its registry. */
  distrusted(label: string, offset: number, length: number): void {
    const message = `Fetching ${length} bytes of ${label} at ${offset} again: they failed a check`;
    const details = { digest: this.digest, offset, length };
    this.#home.report(new ObdError(ErrorCodes.Corrupt, message, details));
    this.#dropped(offset, length);
  }

  /** A reader dropped bytes that the disk cannot read. */
  lost(offset: number, length: number, problem: string): void {
    this.#report(ErrorCodes.Io, `Cannot read cached bytes of ${this.digest} at ${offset}`, problem);
    this.#dropped(offset, length);
  }

  /** A reader, perhaps on another thread, removed the chunks from the set; they may be cached again by now. */
  #dropped(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < end; chunk++) {
      this.#home.held.drop(this, chunk);
    }
    // Other threads drop their copies in memory too.
    this.stored.nextGeneration();
    this.#home.changed(this);
  }

  get unaskedBytesMax(): number {
    return this.#home.room.unaskedBytesMax;
  }

  damaged(chunk: number): void {
    const offset = chunk * CHUNK_BYTES;
    const problem = 'the registry has others, which agree with the digest';
    this.#report(
      ErrorCodes.Corrupt,
      `Dropping cached bytes of ${this.digest} at ${offset}`,
      problem,
    );
  }

  isEmpty(): boolean {
    return this.stored.count === 0;
  }

  agrees(chunk: number, bytes: Uint8Array): boolean | undefined {
    const held = this.#home.held.find(this, chunk);
    if (held !== undefined) return Buffer.from(held).equals(bytes);
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

  drop(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) {
      this.#home.held.drop(this, chunk);
      this.stored.delete(chunk);
    }
    // All threads drop their copies in memory too.
    this.stored.nextGeneration();
    this.#home.changed(this);
  }

  async keep(first: number, bytes: Uint8Array): Promise<void> {
    this.#roomy = await this.#store(first, bytes);
    if (this.#roomy) {
      this.#home.changed(this);
      return;
    }
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      const chunk = first + at / CHUNK_BYTES;
      this.#home.held.hold(this, chunk, bytes.subarray(at, at + CHUNK_BYTES));
    }
  }

  /** @returns False if there is no room, or the disk fails. */
  async #store(first: number, bytes: Uint8Array): Promise<boolean> {
    if (this.#file === undefined) return false;
    const doing = `Cannot store ${bytes.length} bytes of ${this.digest}`;
    const { room } = this.#home;
    const answer = await room.reserve(bytes.length);
    if (answer === 'never') {
      const problem =
        'nothing is left to evict within cache_size and cache_reserve; free disk space';
      this.#home.full(this.#fault(ErrorCodes.NoSpace, doing, problem));
    }
    if (answer !== 'now') return false;
    let storedBytes = 0;
    try {
      await this.#storeEvicting(this.#file, first, bytes);
      storedBytes = bytes.length;
      this.#home.stored();
      return true;
    } catch (error) {
      const code = isDiskFull(error) ? ErrorCodes.NoSpace : ErrorCodes.Io;
      this.#home.full(this.#fault(code, doing, error));
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
        if ((await this.#home.room.evict(bytes.length)) === 0) throw error;
      }
    }
  }

  /** Saves the set of chunks to the disk; if the disk fails, the set loses the newest ones. */
  async save(): Promise<void> {
    if (this.#file === undefined) return;
    try {
      await this.#file.save();
    } catch (error) {
      this.#report(ErrorCodes.Io, `Cannot save the state of ${this.digest}`, error);
    }
  }

  /** Call it when no handle and no fetch is left. Never fails. */
  async close(): Promise<void> {
    this.#home.held.dropAll(this);
    try {
      await this.#file?.close();
    } catch (error) {
      this.#report(ErrorCodes.Io, `Cannot close the cache file of ${this.digest}`, error);
    }
  }

  #report(code: ObdError['code'], doing: string, cause: unknown): void {
    this.#home.report(this.#fault(code, doing, cause));
  }

  #fault(code: ObdError['code'], doing: string, cause: unknown): ObdError {
    const message = typeof cause === 'string' ? cause : messageOf(cause);
    return new ObdError(code, `${doing}: ${message}`, { digest: this.digest }, cause);
  }
}

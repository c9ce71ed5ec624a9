/**
 * A file of this machine, read without ever waiting for its disk: readNow() answers what is in memory, load() brings
 * the rest there while the thread does something else. Both ends of RandomAccessFile's bargain, for bytes at rest.
 *
 * What is in memory is the page cache, and beside it the blocks that this thread has read past it (direct-reads.ts).
 * load() tries, in this order:
 *
 *   1. a direct read by the kernel's aio, which ends on the loop;
 *   2. a read through the page cache on libuv's pool: of a range too long to hold, and wherever 1 is refused (a file
 *      system without direct reads, dirty pages in the way, a full queue, a damaged sector). The blocks are then
 *      marked as brought, and a read of them may go to the file even if the page cache has dropped them again.
 *
 * So after load(), readNow() of that range answers, whatever the file system is. One that cannot say what is in its page
 * cache (overlayfs, 9p, NFS) always takes 2; one that is memory itself (tmpfs) is simply read.
 */
import { closeSync, constants, fstatSync, openSync, read, readSync, statfsSync } from 'node:fs';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { BLOCK_BYTES, type BlockOwner, DirectReads } from './direct-reads.js';
import { NOT_IN_MEMORY, NOWAIT_UNSUPPORTED, readNow } from './libaio.js';

/** Of one load(), what is held past the page cache: a quarter of what the thread has. */
const DIRECT_BLOCKS_MAX = 16;
/** Blocks marked as brought, the oldest forgotten first: eight of the largest requests of a transport. */
const BROUGHT_MAX = 4096;
/** A mark in place of a slot. */
const BROUGHT = -1;
/** Reads of the pool: their bytes stay in the page cache, so all of them go to one place, and nobody looks there. */
const POOL_BYTES = 256 * 1024;
/** From linux/magic.h. */
const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;

let poolTarget: Uint8Array | undefined;
/** Of this thread; made when first a block is missing. */
let direct: DirectReads | undefined;

/** Blocks that one call brings. */
interface Loading {
  ended: Promise<void>;
}

export class ResidentFile {
  readonly #label: string;
  readonly #fd: number;
  readonly #sizeBytes: number;
  /** Reads go to the file, whether or not they wait: it is memory, or its reader has nothing else to do. */
  readonly #isPlain: boolean;
  #canSayNow = true;
  /** What is here besides the page cache: the slot of each block, or BROUGHT. */
  readonly #here = new Map<number, number>();
  /** Blocks being brought, so that who asks for one as well waits for the same. */
  readonly #loading = new Map<number, Loading>();
  /** Undefined: not tried yet. -1: refused. */
  #directFd: number | undefined;
  #closed = false;
  readonly #owner: BlockOwner;

  /**
   * @param fd - Open for reading, of a regular file whose size stays as it is. It stays the caller's, to close after
   *   close(); several ResidentFiles, in several threads, may use it.
   * @param label - What to call the file in an error.
   * @param mayWait - readNow() always answers, and waits for the disk if it must.
   * @throws system errors.
   */
  constructor(fd: number, label: string, mayWait = false) {
    this.#fd = fd;
    this.#label = label;
    this.#sizeBytes = fstatSync(fd).size;
    const { type } = statfsSync(`/proc/self/fd/${fd}`);
    this.#isPlain = mayWait || type === TMPFS || type === RAMFS;
    this.#owner = {
      fd,
      sizeBytes: this.#sizeBytes,
      directFd: () => this.#openDirect(),
      refuseDirect: () => this.#closeDirect(),
      onEvicted: (block) => this.#here.delete(block),
    };
  }

  /**
   * Fills the whole of `target` from `offset`, now; or returns false because some of it is not in memory, leaving
   * `target` with unspecified content.
   *
   * @throws {ObdError} `Corrupt` where the file ends before the range does, `Io` where the read fails.
   */
  readNow(target: Uint8Array, offset: number): boolean {
    if (this.#isPlain) return this.#readFile(target, offset);
    if (this.#here.size > 0) return this.#readBlocks(target, offset);
    return this.#readCached(target, offset);
  }

  /**
   * Brings [offset, offset + length) into memory: the next readNow() of it answers, unless it has to wait long.
   *
   * @throws {ObdError} `Io` where the disk does not give it.
   */
  async load(offset: number, length: number): Promise<void> {
    if (this.#isPlain || length === 0) return;
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil(Math.min(offset + length, this.#sizeBytes) / BLOCK_BYTES);
    if (!this.#canSayNow || end - first > DIRECT_BLOCKS_MAX) {
      await this.#bringByPool(first, end);
      return;
    }
    const waits: Promise<void>[] = [];
    const wanted: number[] = [];
    for (let block = first; block < end; block++) {
      const under = this.#loading.get(block);
      if (under !== undefined) waits.push(under.ended);
      else if (!this.#here.has(block)) wanted.push(block);
    }
    if (wanted.length > 0) waits.push(this.#bring(wanted));
    await Promise.all(waits);
  }

  /** Lets go of what was read of that range: the file has, or will have, other bytes there. */
  forget(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block < end; block++) {
      this.#loading.delete(block);
      this.#drop(block);
    }
  }

  /** forget() of the whole file. What is being loaded is dropped when it arrives. */
  forgetAll(): void {
    this.#loading.clear();
    for (const block of [...this.#here.keys()]) this.#drop(block);
  }

  /** Gives memory back. What is being loaded ends by itself. Idempotent; reading afterwards is a bug. */
  close(): void {
    this.#closed = true;
    this.forgetAll();
    this.#closeDirect();
  }

  #drop(block: number): void {
    const slot = this.#here.get(block);
    if (slot !== undefined && slot !== BROUGHT) direct?.release(slot);
    this.#here.delete(block);
  }

  #readCached(target: Uint8Array, offset: number): boolean {
    for (let done = 0; ; ) {
      const got = this.#canSayNow
        ? readNow(this.#fd, target, done, target.length - done, offset + done)
        : NOT_IN_MEMORY;
      if (got === target.length - done) return true;
      if (got > 0) done += got;
      else if (got === 0) throw this.#ended(offset + done);
      else if (got === NOT_IN_MEMORY) return false;
      else if (got === NOWAIT_UNSUPPORTED) this.#canSayNow = false;
      // It fails: this says how.
      else return this.#readFile(target, offset);
    }
  }

  /** Block by block, because some are not in the page cache. */
  #readBlocks(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / BLOCK_BYTES);
      const to = Math.min(end, (block + 1) * BLOCK_BYTES);
      const part = to - at === target.length ? target : target.subarray(at - offset, to - offset);
      const slot = this.#here.get(block);
      if (slot !== undefined && slot !== BROUGHT) {
        if (to > this.#sizeBytes) throw this.#ended(this.#sizeBytes);
        direct!.copy(slot, at - block * BLOCK_BYTES, part);
      } else {
        const cached = this.#readCached(part, at);
        if (!cached && slot !== BROUGHT) return false;
        if (!cached) this.#readFile(part, at);
        // It was good for one read; where the page cache cannot be asked, for as long as there is room.
        if (slot === BROUGHT && this.#canSayNow) this.#here.delete(block);
      }
      at = to;
    }
    return true;
  }

  /** Reads the file itself, which may wait. */
  #readFile(target: Uint8Array, offset: number): true {
    for (let done = 0; done < target.length; ) {
      let got: number;
      try {
        got = readSync(this.#fd, target, done, target.length - done, offset + done);
      } catch (error) {
        throw this.#failed(offset + done, error);
      }
      if (got === 0) throw this.#ended(offset + done);
      done += got;
    }
    return true;
  }

  async #bring(blocks: readonly number[]): Promise<void> {
    const loading: Loading = { ended: Promise.resolve() };
    for (const block of blocks) this.#loading.set(block, loading);
    loading.ended = this.#bringDirectly(blocks, loading);
    try {
      await loading.ended;
    } finally {
      for (const block of blocks) {
        if (this.#loading.get(block) === loading) this.#loading.delete(block);
      }
    }
  }

  async #bringDirectly(blocks: readonly number[], loading: Loading): Promise<void> {
    direct ??= new DirectReads();
    const slots = await direct.bring(this.#owner, blocks);
    for (const [i, block] of blocks.entries()) {
      const slot = slots[i]!;
      if (slot === -1) continue;
      // Forgotten meanwhile, it has no place any more.
      if (this.#loading.get(block) === loading) this.#here.set(block, slot);
      else direct.release(slot);
    }
    for (const [i, block] of blocks.entries()) {
      if (slots[i] === -1) await this.#bringByPool(block, block + 1);
    }
  }

  /** Through the page cache, on a thread of libuv's. */
  async #bringByPool(first: number, endBlock: number): Promise<void> {
    poolTarget ??= new Uint8Array(POOL_BYTES);
    const end = Math.min(endBlock * BLOCK_BYTES, this.#sizeBytes);
    for (let at = first * BLOCK_BYTES; at < end && !this.#closed; ) {
      const got = await this.#readOnPool(poolTarget, Math.min(POOL_BYTES, end - at), at);
      // The file has been cut short; who reads there is told.
      if (got === 0) break;
      at += got;
    }
    if (this.#closed) return;
    for (let block = first; block < endBlock; block++) this.#here.set(block, BROUGHT);
    for (const [block, slot] of this.#here) {
      if (this.#here.size <= BROUGHT_MAX) break;
      if (slot === BROUGHT) this.#here.delete(block);
    }
  }

  #readOnPool(target: Uint8Array, length: number, offset: number): Promise<number> {
    return new Promise((resolve, reject) => {
      read(this.#fd, target, 0, length, offset, (error, got) => {
        if (error === null) resolve(got);
        else reject(this.#failed(offset, error));
      });
    });
  }

  #openDirect(): number | undefined {
    if (this.#directFd === undefined && !this.#closed) {
      try {
        // Another descriptor of the same file, even of one that has no name any more.
        const flags = constants.O_RDONLY | constants.O_DIRECT;
        this.#directFd = openSync(`/proc/self/fd/${this.#fd}`, flags);
      } catch {
        // This file system has no direct reads.
        this.#directFd = -1;
      }
    }
    return this.#directFd === -1 ? undefined : this.#directFd;
  }

  #closeDirect(): void {
    if (this.#directFd !== undefined && this.#directFd !== -1) closeSync(this.#directFd);
    this.#directFd = -1;
  }

  #ended(offset: number): ObdError {
    return new ObdError(
      ErrorCodes.Corrupt,
      `Cannot read "${this.#label}": it ends at ${offset}, and was ${this.#sizeBytes} bytes when opened`,
      { path: this.#label, offset },
    );
  }

  #failed(offset: number, cause: unknown): ObdError {
    return new ObdError(
      ErrorCodes.Io,
      `Cannot read "${this.#label}" at ${offset}: ${messageOf(cause)}`,
      { path: this.#label, offset },
      cause,
    );
  }
}

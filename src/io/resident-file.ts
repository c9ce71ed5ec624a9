/**
 * A local file that is read without waiting for its disk: tryRead() reads bytes in memory, load() brings the rest into
 * memory while the thread does other work. Implements both halves of RandomAccessFile for local files.
 *
 * Bytes in memory are those in the page cache, and the blocks that this thread has read directly (direct-reads.ts).
 * load() tries, in this order:
 *
 *   1. a direct read by the kernel's aio, which completes on the event loop;
 *   2. a read through the page cache on libuv's pool: for a range too long to hold, and if the kernel refuses 1 (a file
 *      system without direct reads, dirty pages in the way, a full queue, a damaged sector). load() then marks the
 *      blocks as brought, and a read of them may go to the file even if the page cache has dropped them again.
 *
 * So after load(), tryRead() of that range succeeds on every file system. File systems that cannot report their page
 * cache (overlayfs, 9p, NFS) always take 2; a file in memory (tmpfs) is read directly.
 */
import { closeSync, constants, fstatSync, openSync, read, readSync, statfsSync } from 'node:fs';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { type BlockOwner, DIRECT_BLOCK_BYTES, DirectReads } from './direct-reads.js';
import { NOT_IN_MEMORY, NOWAIT_UNSUPPORTED, readNow } from './libaio.js';

/** How many blocks one load() holds outside the page cache: a quarter of the thread's. */
const DIRECT_BLOCKS_MAX = 16;
/** Limit for blocks marked as brought, oldest evicted first: eight of the largest requests of a transport. */
const BROUGHT_MAX = 4096;
/** A mark in place of a slot. */
const BROUGHT = -1;
/** Size of one pool read. All pool reads share one unread buffer, because they only fill the page cache. */
const POOL_BYTES = 256 * 1024;
/** From linux/magic.h. */
const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;

let poolTarget: Uint8Array | undefined;
/** One per thread, created at the first missing block. */
let direct: DirectReads | undefined;

/** Blocks that one call brings. */
interface Loading {
  ended: Promise<void>;
}

export class ResidentFile {
  readonly #label: string;
  readonly #fd: number;
  readonly #sizeBytes: number;
  /** Reads go to the file even if they wait: it is in memory, or its reader has nothing else to do. */
  readonly #isPlain: boolean;
  #canSayNow = true;
  /** Blocks in memory outside the page cache, by slot, and the mark BROUGHT. */
  readonly #here = new Map<number, number>();
  /** Blocks being loaded, so that concurrent loads of a block share one read. */
  readonly #loading = new Map<number, Loading>();
  /** Undefined: not tried yet. -1: refused. */
  #directFd: number | undefined;
  #closed = false;
  readonly #owner: BlockOwner;

  /**
   * @param fd - Open for reading, of a regular file whose size does not change. The caller owns it and closes it after
   *   close(); several ResidentFiles, in several threads, may use it.
   * @param label - Name of the file in errors.
   * @param mayWait - tryRead() always succeeds, and waits for the disk if it must.
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
  tryRead(target: Uint8Array, offset: number): boolean {
    if (this.#isPlain) return this.#readFile(target, offset);
    if (this.#here.size > 0) return this.#readBlocks(target, offset);
    return this.#readCached(target, offset);
  }

  /**
   * Brings [offset, offset + length) into memory: the next tryRead() of it succeeds, unless it comes much later.
   *
   * @throws {ObdError} `Io` if the disk cannot read it.
   */
  async load(offset: number, length: number): Promise<void> {
    if (this.#isPlain || length === 0) return;
    const first = Math.floor(offset / DIRECT_BLOCK_BYTES);
    const end = Math.ceil(Math.min(offset + length, this.#sizeBytes) / DIRECT_BLOCK_BYTES);
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

  /** Drops the blocks of that range: the file has, or will have, other bytes there. */
  invalidate(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / DIRECT_BLOCK_BYTES);
    for (let block = Math.floor(offset / DIRECT_BLOCK_BYTES); block < end; block++) {
      this.#loading.delete(block);
      this.#drop(block);
    }
  }

  /** invalidate() of the whole file. Blocks in flight are dropped when they arrive. */
  invalidateAll(): void {
    this.#loading.clear();
    for (const block of [...this.#here.keys()]) this.#drop(block);
  }

  /** Frees memory. Loads in flight end by themselves. Idempotent; reading afterwards is a bug. */
  close(): void {
    this.#closed = true;
    this.invalidateAll();
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
      // It fails: #readFile() throws the cause.
      else return this.#readFile(target, offset);
    }
  }

  /** Block by block, because some are not in the page cache. */
  #readBlocks(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / DIRECT_BLOCK_BYTES);
      const to = Math.min(end, (block + 1) * DIRECT_BLOCK_BYTES);
      const part = to - at === target.length ? target : target.subarray(at - offset, to - offset);
      const slot = this.#here.get(block);
      if (slot !== undefined && slot !== BROUGHT) {
        if (to > this.#sizeBytes) throw this.#ended(this.#sizeBytes);
        direct!.copy(slot, at - block * DIRECT_BLOCK_BYTES, part);
      } else {
        const cached = this.#readCached(part, at);
        if (!cached && slot !== BROUGHT) return false;
        if (!cached) this.#readFile(part, at);
        // The mark lasts for one read; if the page cache cannot be queried, it lasts while there is room.
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
      // invalidate() during the load has removed it.
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
    const end = Math.min(endBlock * DIRECT_BLOCK_BYTES, this.#sizeBytes);
    for (let at = first * DIRECT_BLOCK_BYTES; at < end && !this.#closed; ) {
      const got = await this.#readOnPool(poolTarget, Math.min(POOL_BYTES, end - at), at);
      // The file has been truncated; tryRead() reports that.
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
        // Another descriptor of the same file, even after its name was removed.
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

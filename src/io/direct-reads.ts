/**
 * One thread's reads past the page cache: blocks of DIRECT_BLOCK_BYTES, brought by the kernel's aio into a few MiB of
 * memory, where they stay until newer ones need the room.
 *
 *   free -> loading -> unread -> read -> free
 *
 * A block that has not been read yet is not evicted for UNREAD_MS: the caller that asked for it is about to read it. If
 * no slot is free, or the disk's queue takes no more, the answer is "not brought", and the caller reads another way. So
 * nothing here queues, and nothing grows.
 *
 * Blocks are read without asking the page cache for them first: the caller has asked, and each such question makes the kernel
 * read ahead, which reads the disk once more.
 */
import { constants } from 'node:os';
import { AioQueue, alignedBytes, type ReadColumns } from './libaio.js';

/** As the chunks of the block cache, so that no block has bytes of a chunk that was not asked for. */
export const DIRECT_BLOCK_BYTES = 64 * 1024;
const SLOTS = 64;
/** Alignment of direct reads: no disk has larger sectors. */
const ALIGNMENT = 4096;
const UNREAD_MS = 1000;
/** Errors of a file system that lets a file be opened for direct reads, and then has none. */
const REFUSALS = [-constants.errno.EINVAL, -constants.errno.EOPNOTSUPP];

/** The owner of the block. */
export interface BlockOwner {
  readonly fd: number;
  readonly sizeBytes: number;
  /** For direct reads; undefined where the file system has none. */
  directFd(): number | undefined;
  /** The file system refuses direct reads after all. */
  refuseDirect(): void;
  /** The slot that a block of this file was in has another by now. */
  onEvicted(block: number): void;
}

const FREE = 0;
const LOADING = 1;
const UNREAD = 2;
const READ = 3;

/** Bringing the blocks of one call. */
interface Batch {
  left: number;
  readonly done: () => void;
}

export class DirectReads {
  readonly #memory = alignedBytes(SLOTS * DIRECT_BLOCK_BYTES, ALIGNMENT);
  readonly #states = new Uint8Array(SLOTS);
  readonly #owners: (BlockOwner | undefined)[] = new Array(SLOTS).fill(undefined);
  readonly #blocks = new Float64Array(SLOTS);
  /** Bytes that came: less than a block at the end of a file, negative where it failed. */
  readonly #bytes = new Int32Array(SLOTS);
  readonly #usedAt = new Float64Array(SLOTS);
  readonly #batches: (Batch | undefined)[] = new Array(SLOTS).fill(undefined);
  readonly #queue: AioQueue | undefined;
  readonly #columns: ReadColumns = {
    fds: new Int32Array(SLOTS),
    offsets: new Float64Array(SLOTS),
    positions: new Uint32Array(SLOTS),
    lengths: new Uint32Array(SLOTS),
  };
  readonly #tags = new Int32Array(SLOTS);

  constructor() {
    try {
      this.#queue = new AioQueue(SLOTS, this.#memory, (slot, result) => this.#end(slot, result));
    } catch {
      // No aio, or no room for another queue on this machine: everything goes the other way.
      this.#queue = undefined;
    }
  }

  /**
   * Brings blocks of a file; resolves when none of them is under way.
   *
   * @returns The slot of each, or -1 for one that was not brought. The content of a slot is the file's until its
   *   onEvicted() or release().
   */
  async bring(file: BlockOwner, blocks: readonly number[]): Promise<number[]> {
    const slots = blocks.map((block) => this.#reserve(file, block));
    const wanted = slots.filter((slot) => slot !== -1);
    if (wanted.length > 0) {
      await new Promise<void>((resolve) => {
        this.#submit(file, wanted, { left: wanted.length, done: resolve });
      });
    }
    const now = performance.now();
    return slots.map((slot) => {
      if (slot === -1) return -1;
      if (this.#bytes[slot]! < this.#bytesWanted(slot)) {
        this.release(slot);
        return -1;
      }
      this.#states[slot] = UNREAD;
      this.#usedAt[slot] = now;
      return slot;
    });
  }

  /** Copies bytes of a slot's block to `target`. */
  copy(slot: number, from: number, target: Uint8Array): void {
    const at = slot * DIRECT_BLOCK_BYTES + from;
    target.set(this.#memory.subarray(at, at + target.length));
    this.#states[slot] = READ;
    this.#usedAt[slot] = performance.now();
  }

  /** Gives a slot back that is not loading. */
  release(slot: number): void {
    this.#states[slot] = FREE;
    this.#owners[slot] = undefined;
  }

  #bytesWanted(slot: number): number {
    const start = this.#blocks[slot]! * DIRECT_BLOCK_BYTES;
    return Math.min(DIRECT_BLOCK_BYTES, this.#owners[slot]!.sizeBytes - start);
  }

  #reserve(file: BlockOwner, block: number): number {
    const slot = this.#queue === undefined ? -1 : this.#leastNeeded();
    if (slot === -1) return -1;
    this.#owners[slot]?.onEvicted(this.#blocks[slot]!);
    this.#states[slot] = LOADING;
    this.#owners[slot] = file;
    this.#blocks[slot] = block;
    this.#bytes[slot] = 0;
    return slot;
  }

  #leastNeeded(): number {
    const unreadSince = performance.now() - UNREAD_MS;
    let best = -1;
    for (let slot = 0; slot < SLOTS; slot++) {
      const state = this.#states[slot];
      if (state === FREE) return slot;
      const evictable = state === READ || (state === UNREAD && this.#usedAt[slot]! < unreadSince);
      if (evictable && (best === -1 || this.#usedAt[slot]! < this.#usedAt[best]!)) best = slot;
    }
    return best;
  }

  #describe(fd: number, slots: readonly number[]): void {
    for (const [i, slot] of slots.entries()) {
      this.#columns.fds[i] = fd;
      this.#columns.offsets[i] = this.#blocks[slot]! * DIRECT_BLOCK_BYTES;
      this.#columns.positions[i] = slot * DIRECT_BLOCK_BYTES;
      this.#columns.lengths[i] = DIRECT_BLOCK_BYTES;
      this.#tags[i] = slot;
    }
  }

  #submit(file: BlockOwner, slots: readonly number[], batch: Batch): void {
    const fd = file.directFd();
    for (const slot of slots) this.#batches[slot] = batch;
    let taken = 0;
    if (fd !== undefined) {
      this.#describe(fd, slots);
      taken = this.#queue!.submit(slots.length, this.#columns, this.#tags);
    }
    for (const slot of slots.slice(Math.max(0, taken))) this.#end(slot, Math.min(taken, -1));
  }

  #end(slot: number, result: number): void {
    const batch = this.#batches[slot]!;
    this.#batches[slot] = undefined;
    this.#bytes[slot] = result;
    if (REFUSALS.includes(result)) this.#owners[slot]!.refuseDirect();
    if (--batch.left === 0) batch.done();
  }
}

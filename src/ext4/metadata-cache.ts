/**
 * The metadata blocks in use, in memory: bitmaps, inode tables, directories, extent and xattr blocks. File content
 * bypasses this cache.
 *
 * Write-back: a block whose `dirty` is set reaches the device in flush(), or in trim() if it was not used for a while,
 * in runs of neighbours. get() never evicts, so its caller may hold blocks until the next trim(), which the file system
 * calls between two operations.
 *
 * Two generations approximate a list by age: a used block moves to the young one; when that is full, the old one is
 * written and evicted, and the young one becomes old. Memory: 2 * YOUNG_BLOCKS_MAX * 4 KiB, and the blocks of one
 * operation.
 */
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';

/** 8 MiB a generation: the inode tables of 30,000 files, or a directory of 100,000. */
const YOUNG_BLOCKS_MAX = 2048;
/** Neighbours are written together, up to 256 KiB. */
const RUN_BLOCKS_MAX = 64;

export class CachedBlock {
  readonly number: number;
  readonly bytes: Buffer;
  dirty: boolean;

  constructor(number: number, bytes: Buffer, dirty: boolean) {
    this.number = number;
    this.bytes = bytes;
    this.dirty = dirty;
  }
}

export class MetadataCache {
  readonly #device: BlockDevice;
  readonly #run = Buffer.alloc(RUN_BLOCKS_MAX * EXT4_BLOCK_BYTES);
  #young = new Map<number, CachedBlock>();
  #old = new Map<number, CachedBlock>();

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  get(number: number): CachedBlock {
    return this.#cached(number) ?? this.#read(number);
  }

  /** A block whose content on the device does not matter: all zeroes, and dirty. */
  fresh(number: number): CachedBlock {
    this.#old.delete(number);
    const block = new CachedBlock(number, Buffer.alloc(EXT4_BLOCK_BYTES), true);
    this.#young.set(number, block);
    return block;
  }

  /** Drops blocks, changed or not: they are no longer metadata. */
  drop(start: number, count: number): void {
    for (const generation of [this.#young, this.#old]) {
      if (count <= generation.size) {
        for (let number = start; number < start + count; number++) generation.delete(number);
      } else {
        for (const number of generation.keys()) {
          if (number >= start && number < start + count) generation.delete(number);
        }
      }
    }
  }

  /** Frees memory. Hold no block across this call. */
  trim(): void {
    if (this.#young.size < YOUNG_BLOCKS_MAX) return;
    this.#write(this.#old);
    this.#old = this.#young;
    this.#young = new Map();
  }

  /** Writes all changed blocks; they stay cached. */
  flush(): void {
    this.#write(new Map([...this.#old, ...this.#young]));
  }

  #cached(number: number): CachedBlock | undefined {
    const young = this.#young.get(number);
    if (young !== undefined) return young;
    const old = this.#old.get(number);
    if (old === undefined) return undefined;
    this.#old.delete(number);
    this.#young.set(number, old);
    return old;
  }

  #read(number: number): CachedBlock {
    const block = new CachedBlock(number, Buffer.alloc(EXT4_BLOCK_BYTES), false);
    this.#device.read(block.bytes, number * EXT4_BLOCK_BYTES);
    this.#young.set(number, block);
    return block;
  }

  #write(generation: ReadonlyMap<number, CachedBlock>): void {
    const dirty = [...generation.values()].filter((block) => block.dirty);
    dirty.sort((a, b) => a.number - b.number);
    for (let at = 0; at < dirty.length; ) {
      const first = (dirty[at] as CachedBlock).number;
      let count = 0;
      while (count < RUN_BLOCKS_MAX && dirty[at + count]?.number === first + count) {
        const block = dirty[at + count] as CachedBlock;
        this.#run.set(block.bytes, count * EXT4_BLOCK_BYTES);
        block.dirty = false;
        count++;
      }
      this.#device.write(this.#run.subarray(0, count * EXT4_BLOCK_BYTES), first * EXT4_BLOCK_BYTES);
      at += count;
    }
  }
}

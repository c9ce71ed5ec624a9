/**
 * Knows which blocks are free, and chooses the next ones.
 *
 * Content is allocated next-fit: behind the previous content, starting from the end of the used blocks when the file
 * system is opened. So the files of a layer follow each other on the disk in the order of its archive, a file is as
 * contiguous as free space is, and blocks that a layer frees are only used again after the end of the disk was reached
 * (a layer's blob grows with its writes, at any place).
 *
 * Metadata (directories, extent and xattr blocks) would lie between the files; it is allocated in separate windows of
 * METADATA_WINDOW_BLOCKS, so that the blocks that a mount reads first are together. The rest of the last window stays
 * free when a layer ends; on a disk of mostly holes that costs nothing.
 *
 * Bitmaps that were never written (BLOCK_UNINIT) are created at the first allocation from their group.
 */
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { clearRun, lastSet, nextClear, nextSet, setRun } from './bitmap.js';
import { damaged, noSpace } from './ext4-error.js';
import { BLOCK_UNINIT, type GroupDescriptors } from './group-descriptors.js';
import type { CachedBlock, MetadataCache } from './metadata-cache.js';
import { BLOCKS_PER_GROUP, type Superblock } from './superblock.js';

/** 1 MiB: some hundred directories. */
const METADATA_WINDOW_BLOCKS = 256;

export interface BlockRun {
  readonly start: number;
  readonly count: number;
}

export class BlockAllocator {
  readonly #device: BlockDevice;
  readonly #cache: MetadataCache;
  readonly #superblock: Superblock;
  readonly #groups: GroupDescriptors;
  /** Start of the search for content's next block. */
  #next: number;
  #windowNext = 0;
  #windowEnd = 0;

  constructor(
    device: BlockDevice,
    cache: MetadataCache,
    superblock: Superblock,
    groups: GroupDescriptors,
  ) {
    this.#device = device;
    this.#cache = cache;
    this.#superblock = superblock;
    this.#groups = groups;
    this.#next = this.#endOfUsed();
  }

  /**
   * Allocates the next free run, of at most `blocksMax` blocks, for content.
   *
   * @throws {ObdError} `NoSpace`.
   */
  takeRun(blocksMax: number): BlockRun {
    const run = this.#findRun(blocksMax);
    if (run === undefined) throw noSpace('blocks');
    this.#take(run);
    this.#next = run.start + run.count;
    return run;
  }

  /**
   * Allocates one block for metadata.
   *
   * @throws {ObdError} `NoSpace`.
   */
  takeMetadataBlock(): number {
    for (;;) {
      const start = this.#nextInWindow();
      if (start !== undefined) {
        this.#take({ start, count: 1 });
        this.#windowNext = start + 1;
        return start;
      }
      const window = this.#findRun(METADATA_WINDOW_BLOCKS);
      if (window === undefined) throw noSpace('blocks');
      this.#windowNext = window.start;
      this.#windowEnd = window.start + window.count;
      this.#next = this.#windowEnd;
    }
  }

  /** @throws {ObdError} `Corrupt` if they are free, or no blocks of this file system. */
  free(start: number, count: number): void {
    if (start < 1 || count < 1 || start + count > this.#superblock.blocks) {
      throw damaged(`block ${start}`, `a run of ${count} blocks there leaves the file system`);
    }
    for (let at = start; at < start + count; ) {
      const group = Math.floor(at / BLOCKS_PER_GROUP);
      const from = at - group * BLOCKS_PER_GROUP;
      const end = Math.min(BLOCKS_PER_GROUP, from + start + count - at);
      const bitmap = this.#bitmap(group);
      if (nextClear(bitmap.bytes, from, end) < end) {
        throw damaged(`block ${at}`, 'it is in use twice, or by what never got it');
      }
      clearRun(bitmap.bytes, from, end);
      this.#count(group, bitmap, end - from);
      at += end - from;
    }
    this.#cache.drop(start, count);
    this.#device.discard(start * EXT4_BLOCK_BYTES, count * EXT4_BLOCK_BYTES);
  }

  #nextInWindow(): number | undefined {
    if (this.#windowNext >= this.#windowEnd) return undefined;
    // A window is part of one group, as every run found is.
    const group = Math.floor(this.#windowNext / BLOCKS_PER_GROUP);
    const base = group * BLOCKS_PER_GROUP;
    const end = this.#windowEnd - base;
    const free = nextClear(this.#bitmap(group).bytes, this.#windowNext - base, end);
    return free < end ? base + free : undefined;
  }

  /** Returns the next free run from #next on, round the end of the disk; does not allocate it. */
  #findRun(blocksMax: number): BlockRun | undefined {
    const first = Math.floor(this.#next / BLOCKS_PER_GROUP);
    const { groups } = this.#superblock;
    // The first group twice: from the middle at the start, from its beginning at the end.
    for (let i = 0; i <= groups; i++) {
      const group = (first + i) % groups;
      const from = i === 0 ? this.#next % BLOCKS_PER_GROUP : 0;
      const run = this.#findRunIn(group, from, blocksMax);
      if (run !== undefined) return run;
    }
    return undefined;
  }

  #findRunIn(group: number, from: number, blocksMax: number): BlockRun | undefined {
    if (this.#groups.freeBlocks(group) === 0) return undefined;
    const { bytes } = this.#bitmap(group);
    const blocks = this.#superblock.blocksIn(group);
    const start = nextClear(bytes, from, blocks);
    if (start >= blocks) return undefined;
    const end = nextSet(bytes, start, Math.min(blocks, start + blocksMax));
    return { start: group * BLOCKS_PER_GROUP + start, count: end - start };
  }

  #take(run: BlockRun): void {
    const group = Math.floor(run.start / BLOCKS_PER_GROUP);
    const from = run.start % BLOCKS_PER_GROUP;
    const bitmap = this.#bitmap(group);
    setRun(bitmap.bytes, from, from + run.count);
    this.#count(group, bitmap, -run.count);
  }

  #count(group: number, bitmap: CachedBlock, freed: number): void {
    bitmap.dirty = true;
    const free = this.#groups.freeBlocks(group) + freed;
    if (free < 0 || free > this.#superblock.blocksIn(group)) {
      throw damaged(`group ${group}`, 'its count of free blocks contradicts its bitmap');
    }
    this.#groups.setFreeBlocks(group, free);
    this.#superblock.freeBlocks += freed;
  }

  #bitmap(group: number): CachedBlock {
    const number = this.#groups.blockBitmap(group);
    if (!this.#groups.hasFlag(group, BLOCK_UNINIT)) return this.#cache.get(number);
    const bitmap = this.#cache.fresh(number);
    const base = group * BLOCKS_PER_GROUP;
    const mark = (start: number, count: number) => {
      const from = Math.max(start - base, 0);
      setRun(bitmap.bytes, from, Math.min(start + count - base, BLOCKS_PER_GROUP));
    };
    mark(base, this.#superblock.backupBlocks(group));
    mark(this.#groups.blockBitmap(group), 1);
    mark(this.#groups.inodeBitmap(group), 1);
    mark(this.#groups.inodeTable(group), this.#superblock.inodeTableBlocks);
    setRun(bitmap.bytes, this.#superblock.blocksIn(group), BLOCKS_PER_GROUP);
    this.#groups.clearFlag(group, BLOCK_UNINIT);
    return bitmap;
  }

  /** One past the last block in use, or 0 if that is the very last. */
  #endOfUsed(): number {
    for (let group = this.#superblock.groups - 1; group >= 0; group--) {
      const blocks = this.#superblock.blocksIn(group);
      if (this.#groups.freeBlocks(group) === blocks) continue;
      if (this.#groups.hasFlag(group, BLOCK_UNINIT)) continue;
      const last = lastSet(this.#bitmap(group).bytes, blocks);
      return (group * BLOCKS_PER_GROUP + last + 1) % this.#superblock.blocks;
    }
    return 0;
  }
}

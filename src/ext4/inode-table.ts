/**
 * Inodes by number: finds, allocates and frees them.
 *
 * The lowest free number is used, so that a layer's new inodes share blocks of the table, and a replaced file keeps its
 * place. Tables of new groups (INODE_UNINIT) are never written whole: a block of a table that was never written reads
 * as zeroes, which is a block of free inodes.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { clearRun, isSet, nextClear, setRun } from './bitmap.js';
import { damaged, noSpace } from './ext4-error.js';
import { type GroupDescriptors, INODE_UNINIT } from './group-descriptors.js';
import { Inode } from './inode.js';
import type { CachedBlock, MetadataCache } from './metadata-cache.js';
import { BLOCKS_PER_GROUP, INODE_BYTES, ROOT_INODE, type Superblock } from './superblock.js';

export class InodeTable {
  readonly #cache: MetadataCache;
  readonly #superblock: Superblock;
  readonly #groups: GroupDescriptors;
  /** No free inode has a lower number. */
  #lowest: number;

  constructor(cache: MetadataCache, superblock: Superblock, groups: GroupDescriptors) {
    this.#cache = cache;
    this.#superblock = superblock;
    this.#groups = groups;
    this.#lowest = superblock.firstInode;
  }

  /** @throws {ObdError} `Corrupt` for a number of a free inode. */
  get(number: number): Inode {
    const usable =
      number === ROOT_INODE ||
      (number >= this.#superblock.firstInode && number <= this.#superblock.inodes);
    if (!usable) throw damaged(`inode ${number}`, 'there is no such inode');
    const inode = this.at(number);
    if (!inode.isInUse) throw damaged(`inode ${number}`, 'it is named by a directory, and is free');
    return inode;
  }

  /** Allocates a free inode; the caller init()s its bytes. */
  take(isDirectory: boolean): Inode {
    const { inodesPerGroup, groups } = this.#superblock;
    let index = this.#lowest - 1;
    for (let group = Math.floor(index / inodesPerGroup); group < groups; group++) {
      const from = index - group * inodesPerGroup;
      index = (group + 1) * inodesPerGroup;
      if (this.#groups.freeInodes(group) === 0) continue;
      const bit = nextClear(this.#bitmap(group).bytes, from, inodesPerGroup);
      if (bit === inodesPerGroup) continue;
      const number = group * inodesPerGroup + bit + 1;
      this.claim(number, isDirectory);
      this.#lowest = number + 1;
      return this.at(number);
    }
    throw noSpace('inodes');
  }

  /** Marks one inode as in use. */
  claim(number: number, isDirectory: boolean): void {
    const { inodesPerGroup } = this.#superblock;
    const group = Math.floor((number - 1) / inodesPerGroup);
    const bit = (number - 1) % inodesPerGroup;
    const bitmap = this.#bitmap(group);
    setRun(bitmap.bytes, bit, bit + 1);
    this.#count(group, bitmap, -1, isDirectory);
    const unused = Math.min(this.#groups.unusedInodes(group), inodesPerGroup - bit - 1);
    if (this.#superblock.hasGroupChecksums) this.#groups.setUnusedInodes(group, unused);
  }

  give(inode: Inode, isDirectory: boolean): void {
    const { inodesPerGroup } = this.#superblock;
    const group = Math.floor((inode.number - 1) / inodesPerGroup);
    const bit = (inode.number - 1) % inodesPerGroup;
    const bitmap = this.#bitmap(group);
    if (!isSet(bitmap.bytes, bit)) throw damaged(inode.where, 'it is in use, and marked as free');
    inode.clear();
    clearRun(bitmap.bytes, bit, bit + 1);
    this.#count(group, bitmap, 1, isDirectory);
    this.#lowest = Math.min(this.#lowest, inode.number);
  }

  /** The bytes of any inode, in use or not. */
  at(number: number): Inode {
    const { inodesPerGroup } = this.#superblock;
    const group = Math.floor((number - 1) / inodesPerGroup);
    const offset = ((number - 1) % inodesPerGroup) * INODE_BYTES;
    const block = this.#groups.inodeTable(group) + Math.floor(offset / EXT4_BLOCK_BYTES);
    return new Inode(number, this.#cache.get(block), offset % EXT4_BLOCK_BYTES);
  }

  #count(group: number, bitmap: CachedBlock, freed: 1 | -1, isDirectory: boolean): void {
    bitmap.dirty = true;
    const free = this.#groups.freeInodes(group) + freed;
    const directories = this.#groups.directories(group) - (isDirectory ? freed : 0);
    if (free < 0 || free > this.#superblock.inodesPerGroup || directories < 0) {
      throw damaged(`group ${group}`, 'its count of free inodes contradicts its bitmap');
    }
    this.#groups.setFreeInodes(group, free);
    this.#groups.setDirectories(group, directories);
    this.#superblock.freeInodes += freed;
  }

  #bitmap(group: number): CachedBlock {
    const number = this.#groups.inodeBitmap(group);
    if (!this.#groups.hasFlag(group, INODE_UNINIT)) return this.#cache.get(number);
    const bitmap = this.#cache.fresh(number);
    setRun(bitmap.bytes, this.#superblock.inodesPerGroup, BLOCKS_PER_GROUP);
    this.#groups.clearFlag(group, INODE_UNINIT);
    return bitmap;
  }
}

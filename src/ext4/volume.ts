/**
 * One file system on one device: the parts that all other code works with, created or opened.
 *
 * Layout of a new one: superblock, group descriptors, all block bitmaps, all inode bitmaps, all inode tables,
 * then content. Bitmaps of unused groups (BLOCK_UNINIT, INODE_UNINIT) and inode tables are not written, since the
 * device reads as zeroes. So an empty 64 GiB file system takes 19 blocks.
 */

import { ErrorCodes, ObdError } from '../errors.js';
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { setRun } from './bitmap.js';
import { BlockAllocator } from './block-allocator.js';
import { ExtentTrees } from './extent-tree.js';
import { BLOCK_UNINIT, GroupDescriptors, INODE_UNINIT, INODE_ZEROED } from './group-descriptors.js';
import { HALF_MD4 } from './hash-index.js';
import { InodeTable } from './inode-table.js';
import { MetadataCache } from './metadata-cache.js';
import { NameHash } from './name-hash.js';
import {
  BLOCKS_MAX,
  BLOCKS_PER_GROUP,
  FIRST_INODE,
  ROOT_INODE,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSET,
  Superblock,
} from './superblock.js';

/** Metadata of so small a disk, and some room. */
const DISK_BYTES_MIN = 1 << 20;

export class Volume {
  readonly device: BlockDevice;
  readonly cache: MetadataCache;
  readonly superblock: Superblock;
  readonly groups: GroupDescriptors;
  readonly allocator: BlockAllocator;
  readonly inodes: InodeTable;
  readonly trees: ExtentTrees;
  readonly nameHash: NameHash;

  private constructor(
    device: BlockDevice,
    cache: MetadataCache,
    superblock: Superblock,
    groups: GroupDescriptors,
  ) {
    this.device = device;
    this.cache = cache;
    this.superblock = superblock;
    this.groups = groups;
    this.allocator = new BlockAllocator(device, cache, superblock, groups);
    this.inodes = new InodeTable(cache, superblock, groups);
    this.trees = new ExtentTrees(cache, superblock, this.allocator);
    this.nameHash = new NameHash(superblock.hashSeed, superblock.hashesUnsigned);
  }

  /**
   * Everything of an empty file system but its directories. The device must read as zeroes.
   *
   * @throws {ObdError} `InvalidArgument` for a disk that is too small or too large.
   */
  static format(device: BlockDevice, uuid: Uint8Array): Volume {
    const { sizeBytes } = device;
    const disk = `Cannot make an ext4 file system on ${sizeBytes} bytes`;
    if (sizeBytes % EXT4_BLOCK_BYTES !== 0 || sizeBytes < DISK_BYTES_MIN) {
      const wanted = `a multiple of ${EXT4_BLOCK_BYTES}, at least ${DISK_BYTES_MIN}, is needed`;
      throw new ObdError(ErrorCodes.InvalidArgument, `${disk}: ${wanted}`);
    }
    if (sizeBytes / EXT4_BLOCK_BYTES > BLOCKS_MAX) {
      throw new ObdError(ErrorCodes.InvalidArgument, `${disk}: the limit is 16 TiB less one block`);
    }
    const superblock = Superblock.make(sizeBytes, uuid);
    const groups = GroupDescriptors.make(superblock);
    const cache = new MetadataCache(device);
    layOut(superblock, groups, cache);
    const volume = new Volume(device, cache, superblock, groups);
    for (let inode = 1; inode < FIRST_INODE; inode++) {
      volume.inodes.claim(inode, inode === ROOT_INODE);
    }
    return volume;
  }

  /** @throws {ObdError} `Unsupported`, `Corrupt`. */
  static open(device: BlockDevice): Volume {
    const cache = new MetadataCache(device);
    const bytes = cache
      .get(0)
      .bytes.subarray(SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES);
    const superblock = new Superblock(bytes, device.sizeBytes);
    const groups = GroupDescriptors.load(superblock, cache);
    // The sums, not what the superblock says: overlaybd's own tools leave that stale.
    superblock.freeBlocks = sum(superblock.groups, (group) => groups.freeBlocks(group));
    superblock.freeInodes = sum(superblock.groups, (group) => groups.freeInodes(group));
    return new Volume(device, cache, superblock, groups);
  }

  /** Whether directories get an index, and whether it is of the one kind that we keep up. */
  get canIndex(): boolean {
    return this.superblock.hasDirIndex && this.superblock.hashVersion === HALF_MD4;
  }

  /** Brings everything to the device. */
  flush(): void {
    this.groups.store(this.cache);
    const first = this.cache.get(0);
    first.bytes.set(this.superblock.bytes, SUPERBLOCK_OFFSET);
    first.dirty = true;
    this.cache.flush();
  }
}

/** Gives every group its tables, and marks the blocks that all of them take. */
function layOut(superblock: Superblock, groups: GroupDescriptors, cache: MetadataCache): void {
  const { groups: count, inodeTableBlocks, inodesPerGroup } = superblock;
  const bitmaps = 1 + superblock.descriptorBlocks;
  const tables = bitmaps + 2 * count;
  const used = tables + count * inodeTableBlocks;
  if (used >= superblock.blocks) {
    throw new TypeError(`${used} blocks of metadata on ${superblock.blocks}`);
  }
  const flags = INODE_UNINIT | INODE_ZEROED;
  for (let group = 0; group < count; group++) {
    const blocks = superblock.blocksIn(group);
    const taken = Math.max(0, Math.min(blocks, used - group * BLOCKS_PER_GROUP));
    groups.setTables(
      group,
      bitmaps + group,
      bitmaps + count + group,
      tables + group * inodeTableBlocks,
    );
    groups.setFreeBlocks(group, blocks - taken);
    groups.setFreeInodes(group, inodesPerGroup);
    groups.setUnusedInodes(group, inodesPerGroup);
    // The last one's says where the disk ends; e2fsck wants it written.
    const isWritten = taken > 0 || group === count - 1;
    groups.setFlags(group, isWritten ? flags : flags | BLOCK_UNINIT);
    if (!isWritten) continue;
    const { bytes } = cache.fresh(groups.blockBitmap(group));
    setRun(bytes, 0, taken);
    setRun(bytes, blocks, BLOCKS_PER_GROUP);
    cache.trim();
  }
  superblock.freeBlocks = superblock.blocks - used;
  superblock.freeInodes = superblock.inodes;
}

function sum(count: number, of: (index: number) => number): number {
  let total = 0;
  for (let i = 0; i < count; i++) total += of(i);
  return total;
}

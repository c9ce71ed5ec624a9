/**
 * The group descriptors: the location of each group's bitmaps and inode table, and its free counts.
 *
 * All of them are in memory (16 KiB for 64 GiB, 4 MiB at most) and are checked when they are read, so that other code
 * need not: tables lie on the disk, counts fit the group. store() writes the ones that changed.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { crc16 } from './crc16.js';
import { damaged } from './ext4-error.js';
import type { MetadataCache } from './metadata-cache.js';
import type { Superblock } from './superblock.js';

export const INODE_UNINIT = 1;
export const BLOCK_UNINIT = 2;
export const INODE_ZEROED = 4;
const CHECKSUM_AT = 0x1e;
/** Descriptors follow the superblock's block. */
const FIRST_BLOCK = 1;

export class GroupDescriptors {
  readonly #superblock: Superblock;
  readonly #bytes: Buffer;
  readonly #stride: number;
  readonly #changed = new Set<number>();

  private constructor(superblock: Superblock, bytes: Buffer) {
    this.#superblock = superblock;
    this.#bytes = bytes;
    this.#stride = superblock.descriptorBytes;
  }

  static make(superblock: Superblock): GroupDescriptors {
    return new GroupDescriptors(
      superblock,
      Buffer.alloc(superblock.descriptorBlocks * EXT4_BLOCK_BYTES),
    );
  }

  /** @throws {ObdError} `Corrupt`. */
  static load(superblock: Superblock, cache: MetadataCache): GroupDescriptors {
    const groups = GroupDescriptors.make(superblock);
    for (let i = 0; i < superblock.descriptorBlocks; i++) {
      groups.#bytes.set(cache.get(FIRST_BLOCK + i).bytes, i * EXT4_BLOCK_BYTES);
      cache.trim();
    }
    for (let group = 0; group < superblock.groups; group++) groups.#check(group);
    return groups;
  }

  blockBitmap(group: number): number {
    return this.#u32(group, 0x0);
  }

  inodeBitmap(group: number): number {
    return this.#u32(group, 0x4);
  }

  inodeTable(group: number): number {
    return this.#u32(group, 0x8);
  }

  setTables(group: number, blockBitmap: number, inodeBitmap: number, inodeTable: number): void {
    const at = group * this.#stride;
    this.#bytes.writeUInt32LE(blockBitmap, at);
    this.#bytes.writeUInt32LE(inodeBitmap, at + 0x4);
    this.#bytes.writeUInt32LE(inodeTable, at + 0x8);
    this.#changed.add(group);
  }

  freeBlocks(group: number): number {
    return this.#u16(group, 0xc);
  }

  setFreeBlocks(group: number, count: number): void {
    this.#setU16(group, 0xc, count);
  }

  freeInodes(group: number): number {
    return this.#u16(group, 0xe);
  }

  setFreeInodes(group: number, count: number): void {
    this.#setU16(group, 0xe, count);
  }

  directories(group: number): number {
    return this.#u16(group, 0x10);
  }

  setDirectories(group: number, count: number): void {
    this.#setU16(group, 0x10, count);
  }

  hasFlag(group: number, flag: number): boolean {
    return (this.#u16(group, 0x12) & flag) !== 0;
  }

  setFlags(group: number, flags: number): void {
    this.#setU16(group, 0x12, flags);
  }

  clearFlag(group: number, flag: number): void {
    this.#setU16(group, 0x12, this.#u16(group, 0x12) & ~flag);
  }

  /** Inodes at the end of the table that were never used; e2fsck does not read them. */
  unusedInodes(group: number): number {
    return this.#u16(group, 0x1c);
  }

  setUnusedInodes(group: number, count: number): void {
    this.#setU16(group, 0x1c, count);
  }

  /** Puts the descriptors that changed into their blocks. */
  store(cache: MetadataCache): void {
    for (const group of this.#changed) {
      const at = group * this.#stride;
      if (this.#superblock.hasGroupChecksums) {
        this.#bytes.writeUInt16LE(this.#checksum(group), at + CHECKSUM_AT);
      }
      const block = cache.get(FIRST_BLOCK + Math.floor(at / EXT4_BLOCK_BYTES));
      block.bytes.set(this.#bytes.subarray(at, at + this.#stride), at % EXT4_BLOCK_BYTES);
      block.dirty = true;
    }
    this.#changed.clear();
  }

  #check(group: number): void {
    const { blocks, inodesPerGroup, inodeTableBlocks, hasGroupChecksums } = this.#superblock;
    if (hasGroupChecksums && this.#u16(group, CHECKSUM_AT) !== this.#checksum(group)) {
      throw damaged(`group ${group}`, 'the checksum of its descriptor is wrong');
    }
    const tables = [this.blockBitmap(group), this.inodeBitmap(group), this.inodeTable(group)];
    const end = this.inodeTable(group) + inodeTableBlocks;
    // With 64-byte descriptors, the upper halves of block numbers; no disk here is that large.
    const high = this.#stride === 64 ? [0x20, 0x24, 0x28].map((at) => this.#u32(group, at)) : [];
    if (
      tables.some((block) => block < 2 || block >= blocks) ||
      end > blocks ||
      high.some(Boolean)
    ) {
      throw damaged(`group ${group}`, 'its bitmaps or inode table are outside the file system');
    }
    if (
      this.freeBlocks(group) > this.#superblock.blocksIn(group) ||
      this.freeInodes(group) > inodesPerGroup ||
      this.unusedInodes(group) > inodesPerGroup
    ) {
      throw damaged(`group ${group}`, 'it counts more free blocks or inodes than it has');
    }
  }

  #checksum(group: number): number {
    const at = group * this.#stride;
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group);
    let crc = crc16(0xffff, this.#superblock.uuid);
    crc = crc16(crc, number);
    crc = crc16(crc, this.#bytes.subarray(at, at + CHECKSUM_AT));
    return crc16(crc, this.#bytes.subarray(at + CHECKSUM_AT + 2, at + this.#stride));
  }

  #u16(group: number, field: number): number {
    return this.#bytes.readUInt16LE(group * this.#stride + field);
  }

  #setU16(group: number, field: number, value: number): void {
    this.#bytes.writeUInt16LE(value, group * this.#stride + field);
    this.#changed.add(group);
  }

  #u32(group: number, field: number): number {
    return this.#bytes.readUInt32LE(group * this.#stride + field);
  }
}

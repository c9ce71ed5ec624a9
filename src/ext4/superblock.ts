/**
 * The superblock: the features that this builder writes, and those that it accepts.
 *
 * Written: 4 KiB blocks, 256-byte inodes, extents, flex_bg, gdt_csum, sparse_super2 without any backup. Read: the same,
 * and file systems of `mkfs.ext4 -O ^has_journal,^metadata_csum` and of overlaybd's own mkfs. Every feature that would
 * need more work than we do (a journal, metadata checksums, inline data, encryption, quotas...) is refused by its bit.
 * docs/formats/ext4.md has the reason for each.
 *
 * Only 32-bit block numbers: 16 TiB of 4 KiB blocks. So all "high" fields are zero, and checked to be.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { beyond, damaged } from './ext4-error.js';

export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_BYTES = 1024;
export const BLOCKS_PER_GROUP = 8 * EXT4_BLOCK_BYTES;
export const INODE_BYTES = 256;
export const ROOT_INODE = 2;
/** The first that is not reserved; mke2fs and e2fsck give it to lost+found. */
export const FIRST_INODE = 11;
/** Block numbers have 32 bits here. */
export const BLOCKS_MAX = 2 ** 32 - 1;
/** mke2fs's default: one inode per 16 KiB. */
const BYTES_PER_INODE = 16384;
const INODES_PER_BLOCK = EXT4_BLOCK_BYTES / INODE_BYTES;
const MAGIC = 0xef53;

const COMPAT = { extAttr: 0x8, resizeInode: 0x10, dirIndex: 0x20, sparseSuper2: 0x200 };
const INCOMPAT = { filetype: 0x2, extents: 0x40, bits64: 0x80, flexBg: 0x200 };
const RO_COMPAT = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  hugeFile: 0x8,
  gdtCsum: 0x10,
  dirNlink: 0x20,
  extraIsize: 0x40,
};
const COMPAT_KNOWN = bitsOf(COMPAT);
const INCOMPAT_KNOWN = bitsOf(INCOMPAT);
const RO_COMPAT_KNOWN = bitsOf(RO_COMPAT);
const INCOMPAT_NEEDED = INCOMPAT.filetype | INCOMPAT.extents;
const STATE_CLEAN = 1;
const ERRORS_CONTINUE = 1;
const HASH_HALF_MD4 = 1;
const FLAG_UNSIGNED_HASH = 2;
const MOUNT_ACL_AND_USER_XATTRS = 0xc;
const EXTRA_ISIZE = 32;

export class Superblock {
  readonly #bytes: Buffer;
  readonly blocks: number;
  readonly inodes: number;
  readonly groups: number;
  readonly inodesPerGroup: number;
  readonly firstInode: number;
  readonly descriptorBytes: number;
  /** gdt_csum: descriptors carry a CRC, and say which bitmaps were never written. */
  readonly hasGroupChecksums: boolean;
  readonly uuid: Buffer;

  /** @throws {ObdError} `Unsupported`, `Corrupt`. */
  constructor(bytes: Uint8Array, deviceBytes: number) {
    this.#bytes = Buffer.from(bytes);
    if (this.#u16(0x38) !== MAGIC) throw damaged('superblock', 'its magic number is wrong');
    this.#checkFeatures();
    this.blocks = this.#u32(0x4);
    this.inodes = this.#u32(0x0);
    this.inodesPerGroup = this.#u32(0x28);
    this.groups = Math.ceil(this.blocks / BLOCKS_PER_GROUP);
    this.firstInode = this.#u32(0x54);
    this.descriptorBytes = (this.#u32(0x60) & INCOMPAT.bits64) !== 0 ? this.#u16(0xfe) : 32;
    this.hasGroupChecksums = (this.#u32(0x64) & RO_COMPAT.gdtCsum) !== 0;
    this.uuid = this.#bytes.subarray(0x68, 0x78);
    this.#checkGeometry(deviceBytes);
  }

  /** The superblock of an empty file system that fills `deviceBytes`; the free counts are yet to be set. */
  static make(deviceBytes: number, uuid: Uint8Array): Superblock {
    const blocks = deviceBytes / EXT4_BLOCK_BYTES;
    const groups = Math.ceil(blocks / BLOCKS_PER_GROUP);
    const wanted = Math.ceil(deviceBytes / BYTES_PER_INODE / groups);
    const inodesPerGroup = Math.ceil(wanted / INODES_PER_BLOCK) * INODES_PER_BLOCK;
    const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
    bytes.writeUInt32LE(groups * inodesPerGroup, 0x0);
    bytes.writeUInt32LE(blocks, 0x4);
    bytes.writeUInt32LE(2, 0x18);
    bytes.writeUInt32LE(2, 0x1c);
    bytes.writeUInt32LE(BLOCKS_PER_GROUP, 0x20);
    bytes.writeUInt32LE(BLOCKS_PER_GROUP, 0x24);
    bytes.writeUInt32LE(inodesPerGroup, 0x28);
    bytes.writeInt16LE(-1, 0x36);
    bytes.writeUInt16LE(MAGIC, 0x38);
    bytes.writeUInt16LE(STATE_CLEAN, 0x3a);
    bytes.writeUInt16LE(ERRORS_CONTINUE, 0x3c);
    bytes.writeUInt32LE(1, 0x4c);
    bytes.writeUInt32LE(FIRST_INODE, 0x54);
    bytes.writeUInt16LE(INODE_BYTES, 0x58);
    bytes.writeUInt32LE(COMPAT.extAttr | COMPAT.dirIndex | COMPAT.sparseSuper2, 0x5c);
    bytes.writeUInt32LE(INCOMPAT_NEEDED | INCOMPAT.flexBg, 0x60);
    bytes.writeUInt32LE(RO_COMPAT_KNOWN, 0x64);
    bytes.set(uuid, 0x68);
    // The seed only spreads names over directory blocks; from the UUID, so that it is the same each time.
    bytes.set(uuid, 0xec);
    bytes.writeUInt8(HASH_HALF_MD4, 0xfc);
    bytes.writeUInt32LE(MOUNT_ACL_AND_USER_XATTRS, 0x100);
    bytes.writeUInt16LE(EXTRA_ISIZE, 0x15c);
    bytes.writeUInt16LE(EXTRA_ISIZE, 0x15e);
    bytes.writeUInt32LE(FLAG_UNSIGNED_HASH, 0x160);
    // One flex group: all tables lie in front, and inode n is at a fixed distance from inode n - 1.
    bytes.writeUInt8(Math.ceil(Math.log2(groups)), 0x174);
    return new Superblock(bytes, deviceBytes);
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  get freeBlocks(): number {
    return this.#u32(0xc);
  }

  set freeBlocks(count: number) {
    this.#bytes.writeUInt32LE(count, 0xc);
  }

  get freeInodes(): number {
    return this.#u32(0x10);
  }

  set freeInodes(count: number) {
    this.#bytes.writeUInt32LE(count, 0x10);
  }

  get hashSeed(): Buffer {
    return this.#bytes.subarray(0xec, 0xfc);
  }

  get hasDirIndex(): boolean {
    return (this.#u32(0x5c) & COMPAT.dirIndex) !== 0;
  }

  get hashVersion(): number {
    return this.#bytes.readUInt8(0xfc);
  }

  get hashesUnsigned(): boolean {
    return (this.#u32(0x160) & FLAG_UNSIGNED_HASH) !== 0;
  }

  get descriptorBlocks(): number {
    return Math.ceil((this.groups * this.descriptorBytes) / EXT4_BLOCK_BYTES);
  }

  get inodeTableBlocks(): number {
    return this.inodesPerGroup / INODES_PER_BLOCK;
  }

  /** Blocks at the start of `group` that hold a copy of the superblock and of the descriptors. */
  backupBlocks(group: number): number {
    const listed = (this.#u32(0x5c) & COMPAT.sparseSuper2) !== 0;
    const sparse = (this.#u32(0x64) & RO_COMPAT.sparseSuper) !== 0;
    const hasBackup = listed
      ? this.#u32(0x24c) === group || this.#u32(0x250) === group
      : !sparse || group <= 1 || [3, 5, 7].some((base) => isPowerOf(base, group));
    return hasBackup ? 1 + this.descriptorBlocks + this.#u16(0xce) : 0;
  }

  blocksIn(group: number): number {
    return Math.min(BLOCKS_PER_GROUP, this.blocks - group * BLOCKS_PER_GROUP);
  }

  #u16(at: number): number {
    return this.#bytes.readUInt16LE(at);
  }

  #u32(at: number): number {
    return this.#bytes.readUInt32LE(at);
  }

  #checkFeatures(): void {
    const unknown: Array<[string, number]> = [
      ['compatible', this.#u32(0x5c) & ~COMPAT_KNOWN],
      ['incompatible', this.#u32(0x60) & ~INCOMPAT_KNOWN],
      ['read-only compatible', this.#u32(0x64) & ~RO_COMPAT_KNOWN],
    ];
    for (const [which, bits] of unknown) {
      if (bits === 0) continue;
      const hex = (bits >>> 0).toString(16);
      throw beyond('superblock', `${which} features 0x${hex} are not handled here`);
    }
    if ((this.#u32(0x60) & INCOMPAT_NEEDED) !== INCOMPAT_NEEDED) {
      throw beyond('superblock', 'it lacks the feature filetype or extents');
    }
    if (this.#u32(0x18) !== 2 || this.#u16(0x58) !== INODE_BYTES) {
      throw beyond(
        'superblock',
        `only blocks of ${EXT4_BLOCK_BYTES} and inodes of 256 bytes are handled`,
      );
    }
  }

  #checkGeometry(deviceBytes: number): void {
    const { blocks, inodesPerGroup, groups, descriptorBytes } = this;
    const sound =
      blocks > 0 &&
      blocks * EXT4_BLOCK_BYTES <= deviceBytes &&
      this.#u32(0x150) === 0 &&
      this.#u32(0x14) === 0 &&
      this.#u32(0x20) === BLOCKS_PER_GROUP &&
      inodesPerGroup > 0 &&
      inodesPerGroup <= BLOCKS_PER_GROUP &&
      inodesPerGroup % INODES_PER_BLOCK === 0 &&
      this.inodes === groups * inodesPerGroup &&
      this.firstInode >= FIRST_INODE &&
      this.firstInode <= this.inodes &&
      (descriptorBytes === 32 || descriptorBytes === 64) &&
      this.descriptorBlocks < blocks;
    if (!sound) {
      const found = `${blocks} blocks in ${groups} groups of ${inodesPerGroup} inodes`;
      throw damaged('superblock', `${found} do not fit together, or not on ${deviceBytes} bytes`);
    }
  }
}

function isPowerOf(base: number, number: number): boolean {
  let power = base;
  while (power < number) power *= base;
  return power === number;
}

function bitsOf(features: Readonly<Record<string, number>>): number {
  return Object.values(features).reduce((all, bit) => all | bit, 0);
}

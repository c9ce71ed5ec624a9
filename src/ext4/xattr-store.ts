/**
 * The extended attributes of an inode: behind its fixed fields, 92 bytes, and in one block for the rest. More than both
 * is Unsupported: Linux keeps longer values in separate inodes only with the feature ea_inode, which mke2fs does not
 * turn on; without it setxattr(2) says ENOSPC.
 *
 * A block that several inodes share (the kernel does that, we do not) is never changed.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import type { BlockAllocator } from './block-allocator.js';
import { beyond, damaged } from './ext4-error.js';
import type { Inode } from './inode.js';
import type { MetadataCache } from './metadata-cache.js';
import type { Superblock } from './superblock.js';
import {
  compareStored,
  fromStored,
  readEntries,
  type StoredXattr,
  storedBytes,
  toStored,
  writeEntries,
  XATTR_MAGIC,
  type XattrArea,
} from './xattr-entries.js';

const MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 32;

export class XattrStore {
  readonly #cache: MetadataCache;
  readonly #superblock: Superblock;
  readonly #allocator: BlockAllocator;

  constructor(cache: MetadataCache, superblock: Superblock, allocator: BlockAllocator) {
    this.#cache = cache;
    this.#superblock = superblock;
    this.#allocator = allocator;
  }

  /** @throws {ObdError} `Corrupt`, `Unsupported`. */
  read(inode: Inode): Map<string, Uint8Array> {
    const stored: StoredXattr[] = [];
    const own = inode.bytes.subarray(inode.xattrsAt);
    if (own.length >= MAGIC_BYTES && own.readUInt32LE(0) === XATTR_MAGIC) {
      stored.push(...readEntries(inode.where, inodeArea(own)));
    }
    if (inode.xattrBlock !== 0) {
      stored.push(...readEntries(inode.where, blockArea(this.#block(inode))));
    }
    return new Map(stored.map((xattr) => fromStored(inode.where, xattr)));
  }

  /**
   * Replaces all extended attributes of the inode.
   *
   * @throws {ObdError} `Unsupported` for more than fits, `InvalidArgument`, `NoSpace`.
   */
  write(inode: Inode, xattrs: ReadonlyMap<string, Uint8Array>): void {
    const outside = [...xattrs].map(([name, value]) => toStored(name, value)).sort(compareStored);
    const own = inode.bytes.subarray(inode.xattrsAt);
    const inside: StoredXattr[] = [];
    for (const xattr of [...outside]) {
      if (storedBytes([...inside, xattr]) > own.length - MAGIC_BYTES) continue;
      inside.push(xattr);
      outside.splice(outside.indexOf(xattr), 1);
    }
    if (outside.length > 0 && storedBytes(outside) > EXT4_BLOCK_BYTES - BLOCK_HEADER_BYTES) {
      const found = `its extended attributes take ${storedBytes(outside)} bytes`;
      throw beyond(
        inode.where,
        `${found}, and one block of ${EXT4_BLOCK_BYTES} is what ext4 has for them`,
      );
    }
    own.fill(0);
    if (inside.length > 0) {
      own.writeUInt32LE(XATTR_MAGIC, 0);
      writeEntries(inodeArea(own), inside);
    }
    inode.touch();
    this.#writeBlock(inode, outside);
  }

  /** Frees the block, if there is one. */
  free(inode: Inode): void {
    if (inode.xattrBlock === 0) return;
    const bytes = this.#block(inode);
    const references = bytes.readUInt32LE(4);
    if (references > 1) {
      bytes.writeUInt32LE(references - 1, 4);
      this.#cache.get(inode.xattrBlock).dirty = true;
    } else this.#allocator.free(inode.xattrBlock, 1);
    inode.xattrBlock = 0;
    inode.blocks -= 1;
  }

  #writeBlock(inode: Inode, xattrs: readonly StoredXattr[]): void {
    const old = inode.xattrBlock;
    const keeps = old !== 0 && xattrs.length > 0 && this.#block(inode).readUInt32LE(4) === 1;
    if (!keeps) this.free(inode);
    if (xattrs.length === 0) return;
    const number = keeps ? old : this.#allocator.takeMetadataBlock();
    const { bytes } = this.#cache.fresh(number);
    bytes.writeUInt32LE(XATTR_MAGIC, 0);
    bytes.writeUInt32LE(1, 4);
    bytes.writeUInt32LE(1, 8);
    bytes.writeUInt32LE(writeEntries(blockArea(bytes), xattrs), 12);
    if (keeps) return;
    inode.xattrBlock = number;
    inode.blocks += 1;
  }

  #block(inode: Inode): Buffer {
    const number = inode.xattrBlock;
    const isOnDisk = number < this.#superblock.blocks && inode.bytes.readUInt16LE(0x76) === 0;
    const bytes = isOnDisk ? this.#cache.get(number).bytes : undefined;
    if (bytes?.readUInt32LE(0) === XATTR_MAGIC && bytes.readUInt32LE(8) === 1) return bytes;
    throw damaged(inode.where, `its extended attributes are not in block ${number}`);
  }
}

function inodeArea(own: Buffer): XattrArea {
  return { bytes: own, entriesAt: MAGIC_BYTES, valuesFrom: MAGIC_BYTES, hasHashes: false };
}

function blockArea(bytes: Buffer): XattrArea {
  return { bytes, entriesAt: BLOCK_HEADER_BYTES, valuesFrom: 0, hasHashes: true };
}

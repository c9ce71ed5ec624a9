/**
 * How many directories a file system has, and which of its blocks begin one: for a daemon that sees the reads of a mounted disk.
 *
 * Sources: kernel Documentation/filesystems/ext4, directory.rst (the first block of a directory has "." and "..", hash trees
 * included) and group_descr.rst (bg_used_dirs_count).
 */
import { ObdError } from '../errors.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock } from './superblock.js';

const DOT = 0x2e;
const DOT_ENTRY_BYTES = 12;
const USED_DIRECTORIES_AT = 0x10;

interface ReadDisk {
  readonly sizeBytes: number;
  tryRead(target: Uint8Array, offset: number): boolean;
}

/** Whether a block of 4 KiB is the first one of a directory. */
export function beginsDirectory(block: Buffer): boolean {
  const second = DOT_ENTRY_BYTES;
  return (
    block.readUInt16LE(4) === DOT_ENTRY_BYTES &&
    block[6] === 1 &&
    block[8] === DOT &&
    block[second + 6] === 2 &&
    block[second + 8] === DOT &&
    block[second + 9] === DOT
  );
}

/** Undefined for a disk without such an ext4 (superblock.ts), and for one whose first blocks are not on this machine. */
export function countDirectories(disk: ReadDisk): number | undefined {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  if (!disk.tryRead(bytes, SUPERBLOCK_OFFSET)) return undefined;
  let superblock: Superblock;
  try {
    superblock = new Superblock(bytes, disk.sizeBytes);
  } catch (error) {
    if (error instanceof ObdError) return undefined;
    throw error;
  }
  const descriptors = Buffer.alloc(superblock.descriptorBlocks * EXT4_BLOCK_BYTES);
  if (!disk.tryRead(descriptors, EXT4_BLOCK_BYTES)) return undefined;
  let directories = 0;
  for (let group = 0; group < superblock.groups; group++) {
    directories += descriptors.readUInt16LE(
      group * superblock.descriptorBytes + USED_DIRECTORIES_AT,
    );
  }
  return directories;
}

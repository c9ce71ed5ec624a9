/**
 * How many directories a file system has, and which of its blocks begin one: for a daemon that sees the reads of a mounted disk.
 *
 * Sources: kernel Documentation/filesystems/ext4, directory.rst (the first block of a directory has "." and "..", hash trees
 * included) and group_descr.rst (bg_used_dirs_count).
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlockDevice } from '../io/block-device.js';
import { GroupDescriptors } from './group-descriptors.js';
import { MetadataCache } from './metadata-cache.js';
import { SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock } from './superblock.js';

const DOT = 0x2e;
const DOT_ENTRY_BYTES = 12;

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

/** Undefined for a disk without an ext4 as superblock.ts has it, and for one whose first blocks are not on this machine. */
export function countDirectories(disk: ReadDisk): number | undefined {
  try {
    const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
    const device = readOnly(disk);
    device.read(bytes, SUPERBLOCK_OFFSET);
    const superblock = new Superblock(bytes, disk.sizeBytes);
    const groups = GroupDescriptors.load(superblock, new MetadataCache(device));
    let directories = 0;
    for (let group = 0; group < superblock.groups; group++)
      directories += groups.directories(group);
    return directories;
  } catch (error) {
    if (error instanceof ObdError) return undefined;
    throw error;
  }
}

function readOnly(disk: ReadDisk): BlockDevice {
  return {
    sizeBytes: disk.sizeBytes,
    read: (target, offset) => {
      if (disk.tryRead(target, offset)) return;
      throw new ObdError(ErrorCodes.Unavailable, 'Cannot count directories: a block is not here');
    },
    write: () => {},
    discard: () => {},
  };
}

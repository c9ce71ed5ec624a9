/**
 * One block of a directory: entries one after the other, each saying how long it is, so that the last one
 * reaches the end and a gap is part of the entry before it (or an entry without an inode, at the start).
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { damaged } from './ext4-error.js';

/** Inode, length, length of the name, type. The name follows, and is padded to four bytes. */
const HEADER_BYTES = 8;

export interface BlockEntry {
  readonly at: number;
  readonly lengthBytes: number;
  /** 0: a gap. */
  readonly inode: number;
  readonly type: number;
  readonly name: Buffer;
}

export function entryBytes(nameBytes: number): number {
  return HEADER_BYTES + Math.ceil(nameBytes / 4) * 4;
}

/**
 * @param where - Inode and block, for messages.
 * @throws {ObdError} `Corrupt` for entries that do not chain up to the end of the block.
 */
export function* entriesOf(block: Buffer, where: string): Generator<BlockEntry> {
  for (let at = 0; at < EXT4_BLOCK_BYTES; ) {
    const lengthBytes = lengthAt(block, at, where);
    const nameAt = at + HEADER_BYTES;
    const name = block.subarray(nameAt, nameAt + block.readUInt8(at + 6));
    yield { at, lengthBytes, inode: block.readUInt32LE(at), type: block.readUInt8(at + 7), name };
    at += lengthBytes;
  }
}

/** The most bytes that an entry added to this block can have. */
export function roomIn(block: Buffer, where: string): number {
  let room = 0;
  for (let at = 0; at < EXT4_BLOCK_BYTES; ) {
    room = Math.max(room, roomAt(block, at, where));
    at += block.readUInt16LE(at + 4);
  }
  return room;
}

export function putEntry(
  block: Buffer,
  at: number,
  lengthBytes: number,
  inode: number,
  type: number,
  name: Uint8Array,
): void {
  block.writeUInt32LE(inode, at);
  block.writeUInt16LE(lengthBytes, at + 4);
  block.writeUInt8(name.length, at + 6);
  block.writeUInt8(type, at + 7);
  block.set(name, at + HEADER_BYTES);
}

/** A block without entries. */
export function clearBlock(block: Buffer): void {
  block.fill(0);
  block.writeUInt16LE(EXT4_BLOCK_BYTES, 4);
}

/**
 * Adds an entry in the first gap that has room; the caller knows that there is one.
 *
 * @param from - An entry to begin with, 0 for the first.
 * @returns Where the entry is; any room behind it is part of it.
 */
export function addEntry(
  block: Buffer,
  where: string,
  from: number,
  inode: number,
  type: number,
  name: Uint8Array,
): number {
  const wanted = entryBytes(name.length);
  for (let at = from; at < EXT4_BLOCK_BYTES; ) {
    const lengthBytes = lengthAt(block, at, where);
    const used = usedAt(block, at);
    if (lengthBytes - used >= wanted) {
      if (used > 0) block.writeUInt16LE(used, at + 4);
      putEntry(block, at + used, lengthBytes - used, inode, type, name);
      return at + used;
    }
    at += lengthBytes;
  }
  throw damaged(where, `it has no room for a name of ${name.length} bytes`);
}

/** The room behind the entry at `at`. */
export function roomAt(block: Buffer, at: number, where: string): number {
  return lengthAt(block, at, where) - usedAt(block, at);
}

/** Takes the entry out: its bytes become part of the one before, or a gap at the start of the block. */
export function removeEntry(block: Buffer, where: string, name: Uint8Array): void {
  let before: BlockEntry | undefined;
  for (const entry of entriesOf(block, where)) {
    if (entry.inode !== 0 && entry.name.equals(name)) {
      if (before === undefined) block.writeUInt32LE(0, entry.at);
      else block.writeUInt16LE(before.lengthBytes + entry.lengthBytes, before.at + 4);
      return;
    }
    before = entry;
  }
  throw damaged(where, 'a name that was there is gone');
}

/** The checked length of the entry at `at`; every walk through a block goes by this. */
function lengthAt(block: Buffer, at: number, where: string): number {
  const hasHeader = at + HEADER_BYTES <= EXT4_BLOCK_BYTES;
  const lengthBytes = hasHeader ? block.readUInt16LE(at + 4) : 0;
  const least = hasHeader ? Math.max(usedAt(block, at), HEADER_BYTES) : HEADER_BYTES;
  if (lengthBytes % 4 !== 0 || lengthBytes < least || at + lengthBytes > EXT4_BLOCK_BYTES) {
    throw damaged(where, `the entry at ${at} has ${lengthBytes} bytes`);
  }
  return lengthBytes;
}

/** Bytes that the entry needs: none if it is a gap. The rest of its length is free. */
function usedAt(block: Buffer, at: number): number {
  return block.readUInt32LE(at) === 0 ? 0 : entryBytes(block.readUInt8(at + 6));
}

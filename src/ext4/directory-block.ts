/**
 * One block of a directory: entries one after the other, each saying how long it is, so that the last one
 * reaches the end and a gap is part of the entry before it (or an entry without an inode, at the start).
 */
import { damaged } from './ext4-error.js';
import { BLOCK_BYTES } from './metadata-cache.js';

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
  for (let at = 0; at < BLOCK_BYTES; ) {
    // An entry may be as long as a block; its header says so in full, as blocks are less than 64 KiB.
    const lengthBytes = at + HEADER_BYTES <= BLOCK_BYTES ? block.readUInt16LE(at + 4) : 0;
    const nameBytes = lengthBytes === 0 ? 0 : block.readUInt8(at + 6);
    const inode = lengthBytes === 0 ? 0 : block.readUInt32LE(at);
    const least = inode === 0 ? HEADER_BYTES : entryBytes(nameBytes);
    if (lengthBytes % 4 !== 0 || lengthBytes < least || at + lengthBytes > BLOCK_BYTES) {
      throw damaged(where, `the entry at ${at} has ${lengthBytes} bytes`);
    }
    if (inode !== 0 && nameBytes === 0) throw damaged(where, `the entry at ${at} has no name`);
    const name = block.subarray(at + HEADER_BYTES, at + HEADER_BYTES + nameBytes);
    yield { at, lengthBytes, inode, type: block.readUInt8(at + 7), name };
    at += lengthBytes;
  }
}

/** The most bytes that an entry added to this block can have. */
export function roomIn(block: Buffer, where: string): number {
  let room = 0;
  for (const entry of entriesOf(block, where)) room = Math.max(room, gapOf(entry));
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
  block.writeUInt16LE(BLOCK_BYTES, 4);
}

/** Adds an entry in the first gap that has room; the caller knows that there is one. */
export function addEntry(
  block: Buffer,
  where: string,
  inode: number,
  type: number,
  name: Uint8Array,
): void {
  const wanted = entryBytes(name.length);
  for (const entry of entriesOf(block, where)) {
    const gap = gapOf(entry);
    if (gap < wanted) continue;
    const at = entry.at + entry.lengthBytes - gap;
    if (entry.inode !== 0) block.writeUInt16LE(entry.lengthBytes - gap, entry.at + 4);
    putEntry(block, at, gap, inode, type, name);
    return;
  }
  throw damaged(where, `it has no room for a name of ${name.length} bytes`);
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

function gapOf(entry: BlockEntry): number {
  return entry.inode === 0 ? entry.lengthBytes : entry.lengthBytes - entryBytes(entry.name.length);
}

/**
 * One inode: the fields of its 256 bytes, in place in the cached block of the inode table.
 *
 * An Inode must not be kept across MetadataCache.trim(): it is a view, made anew for every operation.
 */
import { beyond, damaged } from './ext4-error.js';
import type { CachedBlock } from './metadata-cache.js';
import { INODE_BYTES } from './superblock.js';

/** `socket` occurs in existing file systems only; we never make one. */
export type NodeKind = 'file' | 'directory' | 'symlink' | 'character' | 'block' | 'fifo' | 'socket';

/** Seconds and nanoseconds since the epoch; nanoseconds are 0..999999999 for times before it as well. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanoseconds: number;
}

/** Kind, upper four bits of the mode, type in a directory entry. */
const KINDS: ReadonlyArray<readonly [NodeKind, mode: number, entryType: number]> = [
  ['file', 0o10, 1],
  ['directory', 0o04, 2],
  ['character', 0o02, 3],
  ['block', 0o06, 4],
  ['fifo', 0o01, 5],
  ['socket', 0o14, 6],
  ['symlink', 0o12, 7],
];
const MODE_OF = new Map(KINDS.map(([kind, mode]) => [kind, mode]));
const KIND_OF = new Map(KINDS.map(([kind, mode]) => [mode, kind]));
const ENTRY_TYPE_OF = new Map(KINDS.map(([kind, , type]) => [kind, type]));

export function entryTypeOf(kind: NodeKind): number {
  return ENTRY_TYPE_OF.get(kind) as number;
}

export const EXTENTS_FLAG = 0x80000;
export const INDEX_FLAG = 0x1000;
/** The fields behind the first 128 bytes: sub-second times, and times after 2038. */
const EXTRA_BYTES = 32;
/** The nine bits of permission, and setuid, setgid and sticky. */
const MODE_BITS = 0o7777;
/** The range of times: 34 bits of seconds, from 1901 to 2446. */
export const SECONDS_MIN = -(2 ** 31);
export const SECONDS_MAX = 2 ** 34 - 2 ** 31 - 1;
const BLOCK_MAP_AT = 0x28;
const BLOCK_MAP_BYTES = 60;

type TimeField = 'atime' | 'ctime' | 'mtime' | 'crtime';
/** Positions of the low seconds, and of the nanoseconds and the upper bits. */
const TIME_AT: Readonly<Record<TimeField, readonly [low: number, extra: number]>> = {
  atime: [0x8, 0x8c],
  ctime: [0xc, 0x84],
  mtime: [0x10, 0x88],
  crtime: [0x90, 0x94],
};

export class Inode {
  readonly number: number;
  readonly bytes: Buffer;
  readonly #block: CachedBlock;

  constructor(number: number, block: CachedBlock, offset: number) {
    this.number = number;
    this.#block = block;
    this.bytes = block.bytes.subarray(offset, offset + INODE_BYTES);
  }

  /** Call after each write to `bytes`; the setters below do. */
  touch(): void {
    this.#block.dirty = true;
  }

  /** Makes it as if it had never been used. */
  clear(): void {
    this.bytes.fill(0);
    this.touch();
  }

  init(kind: NodeKind): void {
    this.clear();
    this.bytes.writeUInt16LE((MODE_OF.get(kind) as number) << 12, 0);
    this.bytes.writeUInt16LE(EXTRA_BYTES, 0x80);
  }

  get where(): string {
    return `inode ${this.number}`;
  }

  get isInUse(): boolean {
    return this.links > 0 && this.bytes.readUInt16LE(0) !== 0;
  }

  /** @throws {ObdError} `Corrupt`. */
  get kind(): NodeKind {
    const kind = KIND_OF.get(this.bytes.readUInt16LE(0) >>> 12);
    if (kind === undefined) throw damaged(this.where, 'its mode is no kind of file');
    return kind;
  }

  get mode(): number {
    return this.bytes.readUInt16LE(0) & MODE_BITS;
  }

  set mode(mode: number) {
    const kind = this.bytes.readUInt16LE(0) & ~MODE_BITS;
    this.bytes.writeUInt16LE(kind | (mode & MODE_BITS), 0);
    this.touch();
  }

  get uid(): number {
    return this.bytes.readUInt16LE(0x2) + this.bytes.readUInt16LE(0x78) * 65536;
  }

  set uid(id: number) {
    this.bytes.writeUInt16LE(id % 65536, 0x2);
    this.bytes.writeUInt16LE(Math.floor(id / 65536), 0x78);
    this.touch();
  }

  get gid(): number {
    return this.bytes.readUInt16LE(0x18) + this.bytes.readUInt16LE(0x7a) * 65536;
  }

  set gid(id: number) {
    this.bytes.writeUInt16LE(id % 65536, 0x18);
    this.bytes.writeUInt16LE(Math.floor(id / 65536), 0x7a);
    this.touch();
  }

  get links(): number {
    return this.bytes.readUInt16LE(0x1a);
  }

  set links(count: number) {
    this.bytes.writeUInt16LE(count, 0x1a);
    this.touch();
  }

  /** @throws {ObdError} `Corrupt` for a size that is not a safe integer. */
  get sizeBytes(): number {
    const size = this.bytes.readUInt32LE(0x4) + this.bytes.readUInt32LE(0x6c) * 2 ** 32;
    if (!Number.isSafeInteger(size)) throw damaged(this.where, `its size is ${size} bytes`);
    return size;
  }

  set sizeBytes(size: number) {
    this.bytes.writeUInt32LE(size % 2 ** 32, 0x4);
    this.bytes.writeUInt32LE(Math.floor(size / 2 ** 32), 0x6c);
    this.touch();
  }

  /** Blocks of 4 KiB that belong to it: content, extent tree and xattrs. Stored in 512-byte sectors. */
  set blocks(count: number) {
    const sectors = count * 8;
    this.bytes.writeUInt32LE(sectors % 2 ** 32, 0x1c);
    this.bytes.writeUInt16LE(Math.floor(sectors / 2 ** 32), 0x74);
    this.touch();
  }

  get blocks(): number {
    return (this.bytes.readUInt32LE(0x1c) + this.bytes.readUInt16LE(0x74) * 2 ** 32) / 8;
  }

  hasFlag(flag: number): boolean {
    return (this.bytes.readUInt32LE(0x20) & flag) !== 0;
  }

  setFlag(flag: number): void {
    this.bytes.writeUInt32LE((this.bytes.readUInt32LE(0x20) | flag) >>> 0, 0x20);
    this.touch();
  }

  clearFlag(flag: number): void {
    this.bytes.writeUInt32LE((this.bytes.readUInt32LE(0x20) & ~flag) >>> 0, 0x20);
    this.touch();
  }

  /** Root of the extent tree, target of a short symlink, or device number. */
  get blockMap(): Buffer {
    return this.bytes.subarray(BLOCK_MAP_AT, BLOCK_MAP_AT + BLOCK_MAP_BYTES);
  }

  get xattrBlock(): number {
    return this.bytes.readUInt32LE(0x68);
  }

  set xattrBlock(block: number) {
    this.bytes.writeUInt32LE(block, 0x68);
    this.touch();
  }

  /** Start of xattrs, counted from the inode's own start. @throws {ObdError} `Corrupt`. */
  get xattrsAt(): number {
    const extra = this.bytes.readUInt16LE(0x80);
    if (extra % 4 === 0 && extra <= INODE_BYTES - 128) return 128 + extra;
    throw damaged(this.where, `its extra size is ${extra}`);
  }

  time(field: TimeField): Timestamp {
    const [low, extra] = TIME_AT[field];
    const seconds = this.bytes.readInt32LE(low);
    if (extra + 4 > this.xattrsAt) return { seconds, nanoseconds: 0 };
    const bits = this.bytes.readUInt32LE(extra);
    return { seconds: seconds + (bits & 3) * 2 ** 32, nanoseconds: bits >>> 2 };
  }

  setTime(field: TimeField, time: Timestamp): void {
    const { seconds, nanoseconds } = time;
    if (!(seconds >= SECONDS_MIN && seconds <= SECONDS_MAX)) {
      throw new RangeError(`${seconds} seconds are outside ext4's years 1901 to 2446`);
    }
    const [low, extra] = TIME_AT[field];
    if (extra + 4 > this.xattrsAt) {
      throw beyond(this.where, 'it was made without room for sub-second times');
    }
    const lowSeconds = seconds | 0;
    const epoch = (seconds - lowSeconds) / 2 ** 32;
    this.bytes.writeInt32LE(lowSeconds, low);
    this.bytes.writeUInt32LE(nanoseconds * 4 + epoch, extra);
    this.touch();
  }

  /** 12 bits of major and 20 of minor, in the first form that has room, as the kernel does. */
  setDevice(major: number, minor: number): void {
    if (major > 0xfff || minor > 0xf_ffff) throw new RangeError(`device ${major}:${minor}`);
    if (major < 256 && minor < 256) this.blockMap.writeUInt32LE(major * 256 + minor, 0);
    else
      this.blockMap.writeUInt32LE(
        ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0,
        4,
      );
    this.touch();
  }

  get device(): { readonly major: number; readonly minor: number } {
    const old = this.blockMap.readUInt32LE(0);
    if (old !== 0) return { major: (old >>> 8) & 0xff, minor: old & 0xff };
    const now = this.blockMap.readUInt32LE(4);
    return { major: (now >>> 8) & 0xfff, minor: (now & 0xff) | ((now >>> 12) & 0xf_ff00) };
  }
}

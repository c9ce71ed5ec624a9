/**
 * An ext4 file system on a block device, made and changed in user space: no root, no mount, no other program.
 *
 * Guarantees, from one flush() to the next call: e2fsck finds no errors and the kernel mounts it; the same calls give
 * the same bytes (no clock, no random numbers); opening and changing an existing one reads only the blocks it needs.
 * Between flushes the device is not consistent. After an error it stays inconsistent and must be thrown away.
 *
 * Directories have no clock: adding a name changes only the names, so attributes are exactly those that were set last.
 * Memory is bounded by the caches (metadata-cache.ts, directory-cache.ts), the extents of the file being written, and
 * the names of the largest directory.
 *
 * docs/formats/ext4.md describes the written structures, with reasons.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { DirectoryCache } from './directory-cache.js';
import { beyond, damaged } from './ext4-error.js';
import { FileWriter } from './file-writer.js';
import { EXTENTS_FLAG, type Inode, type NodeKind, type Timestamp } from './inode.js';
import { FIRST_INODE, ROOT_INODE } from './superblock.js';
import { Volume } from './volume.js';
import { XattrStore } from './xattr-store.js';

const NAME_BYTES_MAX = 255;
/** A target and its NUL in one block. */
const LINK_BYTES_MAX = EXT4_BLOCK_BYTES - 1;
/** A target shorter than that is in the inode. */
const SHORT_LINK_BYTES = 60;
const LINKS_MAX = 65000;
/** One bitmap of blocks, one of inodes. */
const BITMAPS_PER_GROUP = 2;
/** The directory of e2fsck, in every new file system. */
export const LOST_AND_FOUND = Buffer.from('lost+found');
const EPOCH: Timestamp = { seconds: 0, nanoseconds: 0 };

/** What to make. */
export type NodeSpec =
  | { readonly kind: 'file' | 'directory' | 'fifo' }
  | { readonly kind: 'character' | 'block'; readonly major: number; readonly minor: number }
  | { readonly kind: 'symlink'; readonly target: Uint8Array };

export interface Attributes {
  /** Permissions, setuid, setgid and sticky: 12 bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** From 1901 to 2446; the caller clamps. */
  readonly mtime: Timestamp;
  readonly atime: Timestamp;
  readonly ctime: Timestamp;
}

export interface NodeStat extends Attributes {
  readonly kind: NodeKind;
  readonly links: number;
  readonly sizeBytes: number;
  /** Of a device; 0 for anything else. */
  readonly major: number;
  readonly minor: number;
}

/** Bytes of the device. */
export interface DeviceRange {
  readonly offset: number;
  readonly length: number;
}

export interface DirectoryEntry {
  readonly name: Uint8Array;
  readonly inode: number;
}

export class Ext4FileSystem {
  readonly #volume: Volume;
  readonly #directories: DirectoryCache;
  readonly #xattrs: XattrStore;
  readonly #writerBuffer = Buffer.alloc(EXT4_BLOCK_BYTES);
  #isWriting = false;

  private constructor(volume: Volume) {
    this.#volume = volume;
    this.#directories = new DirectoryCache(volume);
    this.#xattrs = new XattrStore(volume.cache, volume.superblock, volume.allocator);
  }

  /**
   * Makes an empty file system over the whole of a device that reads as zeroes.
   *
   * @param options.uuid - 16 bytes.
   * @throws {ObdError} `InvalidArgument` for a size that ext4 cannot have here.
   */
  static format(device: BlockDevice, options: { readonly uuid: Uint8Array }): Ext4FileSystem {
    const volume = Volume.format(device, options.uuid);
    const fs = new Ext4FileSystem(volume);
    const times = { mtime: EPOCH, atime: EPOCH, ctime: EPOCH };
    const root = volume.inodes.at(ROOT_INODE);
    fs.#fill(root, ROOT_INODE, { kind: 'directory' }, { mode: 0o755, uid: 0, gid: 0, ...times });
    // e2fsck wants it.
    const attributes = { mode: 0o700, uid: 0, gid: 0, ...times };
    const made = fs.create(ROOT_INODE, LOST_AND_FOUND, { kind: 'directory' }, attributes);
    if (made !== FIRST_INODE) throw new TypeError(`lost+found is inode ${made}`);
    return fs;
  }

  /**
   * Opens a file system made by format() or by a mke2fs with the same features.
   *
   * @throws {ObdError} `Unsupported` for features that we do not maintain, `Corrupt`.
   */
  static open(device: BlockDevice): Ext4FileSystem {
    return new Ext4FileSystem(Volume.open(device));
  }

  /** Bytes of blocks that its files, directories and links take: all but the tables that every empty one of the size has. */
  get contentBytes(): number {
    const { blocks, freeBlocks, groups, inodeTableBlocks, descriptorBlocks } =
      this.#volume.superblock;
    const tables = 1 + descriptorBlocks + groups * (inodeTableBlocks + BITMAPS_PER_GROUP);
    return Math.max(0, blocks - freeBlocks - tables) * EXT4_BLOCK_BYTES;
  }

  lookup(directory: number, name: Uint8Array): number | undefined {
    this.#trim();
    return this.#directories.get(directory).get(name)?.inode;
  }

  /** All its names but "." and "..". Do not change it during the iteration. */
  *entries(directory: number): Generator<DirectoryEntry> {
    this.#trim();
    for (const { name, child } of this.#directories.get(directory).entries()) {
      yield { name, inode: child.inode };
    }
  }

  stat(number: number): NodeStat {
    this.#trim();
    const inode = this.#volume.inodes.get(number);
    const { kind, mode, uid, gid, links, sizeBytes } = inode;
    const isDevice = kind === 'character' || kind === 'block';
    const { major, minor } = isDevice ? inode.device : { major: 0, minor: 0 };
    const mtime = inode.time('mtime');
    const atime = inode.time('atime');
    const ctime = inode.time('ctime');
    return { kind, mode, uid, gid, links, sizeBytes, mtime, atime, ctime, major, minor };
  }

  /**
   * Makes a node and gives it a name. A file is empty until writer() has filled it.
   *
   * @throws {ObdError} `AlreadyExists`, `InvalidArgument` for a name, `Unsupported`, `NoSpace`, `Corrupt`.
   */
  create(directory: number, name: Uint8Array, spec: NodeSpec, attributes: Attributes): number {
    this.#trim();
    const parent = this.#parentForNew(directory, name);
    const inode = this.#volume.inodes.take(spec.kind === 'directory');
    this.#fill(inode, directory, spec, attributes);
    parent.add(name, inode.number, spec.kind);
    return inode.number;
  }

  /**
   * Gives a node, except a directory, one more name.
   *
   * @throws {ObdError} as create(), and `Unsupported` for more links than ext4 counts.
   */
  link(directory: number, name: Uint8Array, number: number): void {
    this.#trim();
    const parent = this.#parentForNew(directory, name);
    const inode = this.#volume.inodes.get(number);
    if (inode.kind === 'directory') {
      throw new ObdError(ErrorCodes.InvalidArgument, 'Cannot link a directory a second time');
    }
    if (inode.links === LINKS_MAX) throw beyond(inode.where, `it has ${LINKS_MAX} links already`);
    parent.add(name, number, inode.kind);
    inode.links++;
  }

  /**
   * Removes a name, and the node with its last name; removes a directory with its whole tree.
   *
   * @throws {ObdError} `NotFound`, `Corrupt`.
   */
  remove(directory: number, name: Uint8Array): void {
    this.#trim();
    const parent = this.#directories.get(directory);
    const child = parent.get(name);
    if (child === undefined) throw new ObdError(ErrorCodes.NotFound, 'Cannot remove: no such name');
    parent.remove(name);
    if (child.isDirectory) this.#removeTree(child.inode, directory);
    else this.#unlink(child.inode);
  }

  /** @throws {ObdError} `InvalidArgument` for anything but a symlink, `Corrupt`. */
  readLink(number: number): Uint8Array {
    this.#trim();
    const inode = this.#expect(number, 'symlink');
    const { sizeBytes } = inode;
    if (sizeBytes === 0 || sizeBytes > LINK_BYTES_MAX) {
      throw damaged(inode.where, `a symlink of ${sizeBytes} bytes`);
    }
    const target = Buffer.alloc(sizeBytes);
    if (inode.hasFlag(EXTENTS_FLAG)) this.#readContent(inode, target, 0);
    else if (sizeBytes < SHORT_LINK_BYTES) inode.blockMap.copy(target);
    else throw beyond(inode.where, 'its blocks are not mapped by extents');
    return target;
  }

  /** Fills `target` from `offset` of a file. The range must be inside it. */
  readFile(number: number, target: Uint8Array, offset: number): void {
    this.#trim();
    const inode = this.#expect(number, 'file');
    if (!(offset >= 0 && offset + target.length <= inode.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + target.length}) is outside ${inode.where}`);
    }
    this.#readContent(inode, target, offset);
  }

  /** Where bytes [start, end) of a file are on the device, in their order; holes are left out. */
  deviceRanges(number: number, start: number, end: number): DeviceRange[] {
    this.#trim();
    const { extents } = this.#volume.trees.read(this.#expect(number, 'file'));
    return extents.flatMap(({ logical, physical, count, unwritten }) => {
      const extentStart = logical * EXT4_BLOCK_BYTES;
      const from = Math.max(start, extentStart);
      const length = Math.min(end, extentStart + count * EXT4_BLOCK_BYTES) - from;
      if (length <= 0 || unwritten) return [];
      return [{ offset: physical * EXT4_BLOCK_BYTES + from - extentStart, length }];
    });
  }

  /**
   * Replaces the content of a file. One file at a time: end() must be called before the next.
   *
   * @throws {ObdError} `InvalidArgument` for anything but a file, `Corrupt`.
   */
  writer(number: number): FileWriter {
    this.#trim();
    if (this.#isWriting) throw new TypeError('the file before is not written yet');
    const inode = this.#expect(number, 'file');
    this.#volume.trees.free(inode);
    this.#volume.trees.write(inode, [], []);
    inode.sizeBytes = 0;
    this.#isWriting = true;
    const { device, allocator, trees, inodes } = this.#volume;
    return new FileWriter(device, allocator, this.#writerBuffer, (extents, sizeBytes) => {
      this.#isWriting = false;
      const written = inodes.get(number);
      trees.write(written, extents, []);
      written.sizeBytes = sizeBytes;
    });
  }

  setAttributes(number: number, attributes: Attributes): void {
    this.#trim();
    setAttributes(this.#volume.inodes.get(number), attributes);
  }

  /**
   * Replaces all extended attributes. Names are latin1 strings, a character a byte.
   *
   * @throws {ObdError} `Unsupported` for more than ext4 has room for, `InvalidArgument` for a bad ACL.
   */
  setXattrs(number: number, xattrs: ReadonlyMap<string, Uint8Array>): void {
    this.#trim();
    this.#xattrs.write(this.#volume.inodes.get(number), xattrs);
  }

  xattrs(number: number): Map<string, Uint8Array> {
    this.#trim();
    return this.#xattrs.read(this.#volume.inodes.get(number));
  }

  /** Writes all changes to the device, which is then consistent. */
  flush(): void {
    if (this.#isWriting) throw new TypeError('a file is not written yet');
    this.#volume.flush();
  }

  /** Between two operations, no code holds a block. */
  #trim(): void {
    this.#volume.cache.trim();
    this.#directories.trim();
  }

  #parentForNew(directory: number, name: Uint8Array) {
    checkName(name);
    const parent = this.#directories.get(directory);
    if (parent.get(name) === undefined) return parent;
    throw new ObdError(ErrorCodes.AlreadyExists, `Cannot make ${quoted(name)}: the name is taken`);
  }

  #fill(inode: Inode, parent: number, spec: NodeSpec, attributes: Attributes): void {
    inode.init(spec.kind);
    inode.links = 1;
    setAttributes(inode, attributes);
    inode.setTime('crtime', attributes.ctime);
    switch (spec.kind) {
      case 'directory':
        this.#directories.make(inode, parent);
        break;
      case 'file':
        this.#volume.trees.write(inode, [], []);
        break;
      case 'symlink':
        this.#putTarget(inode, spec.target);
        break;
      case 'character':
      case 'block':
        inode.setDevice(spec.major, spec.minor);
        break;
      case 'fifo':
    }
  }

  #putTarget(inode: Inode, target: Uint8Array): void {
    if (target.length === 0 || target.length > LINK_BYTES_MAX || target.includes(0)) {
      throw beyond('a symlink', `a target of ${target.length} bytes, or with a NUL`);
    }
    inode.sizeBytes = target.length;
    if (target.length < SHORT_LINK_BYTES) {
      inode.blockMap.set(target);
      return;
    }
    const { allocator, cache, trees } = this.#volume;
    const block = allocator.takeMetadataBlock();
    cache.fresh(block).bytes.set(target);
    trees.write(inode, [{ logical: 0, physical: block, count: 1, unwritten: false }], []);
  }

  #expect(number: number, kind: NodeKind): Inode {
    const inode = this.#volume.inodes.get(number);
    if (inode.kind === kind) return inode;
    const found = `${inode.where} is a ${inode.kind}, not a ${kind}`;
    throw new ObdError(ErrorCodes.InvalidArgument, `Cannot read or write it: ${found}`);
  }

  /** Content of files is only on the device; that of symlinks may still be in the cache. */
  #readContent(inode: Inode, target: Uint8Array, offset: number): void {
    const { device, cache, trees } = this.#volume;
    const { extents } = trees.read(inode);
    const isCached = inode.kind === 'symlink';
    target.fill(0);
    for (const { logical, physical, count, unwritten } of extents) {
      const start = Math.max(offset, logical * EXT4_BLOCK_BYTES);
      const end = Math.min(offset + target.length, (logical + count) * EXT4_BLOCK_BYTES);
      if (start >= end || unwritten) continue;
      const part = target.subarray(start - offset, end - offset);
      const from = start - logical * EXT4_BLOCK_BYTES;
      if (isCached) cache.get(physical).bytes.copy(part, 0, from);
      else device.read(part, physical * EXT4_BLOCK_BYTES + from);
    }
  }

  /** Depth first, without recursion: a layer may nest directories to any depth. */
  #removeTree(number: number, parent: number): void {
    const open = [{ number, children: this.#childrenOf(number) }];
    // In a damaged file system a directory may be below itself.
    const above = new Set([parent, number]);
    for (let last = open.at(-1); last !== undefined; last = open.at(-1)) {
      const child = last.children.pop();
      if (child === undefined) {
        this.#destroy(this.#volume.inodes.get(last.number));
        above.delete(last.number);
        open.pop();
      } else if (!child.isDirectory) {
        this.#unlink(child.inode);
      } else {
        if (above.has(child.inode)) throw damaged(`inode ${child.inode}`, 'it is below itself');
        above.add(child.inode);
        open.push({ number: child.inode, children: this.#childrenOf(child.inode) });
      }
      this.#trim();
    }
  }

  #childrenOf(number: number) {
    return [...this.#directories.get(number).entries()].map(({ child }) => child);
  }

  #unlink(number: number): void {
    const inode = this.#volume.inodes.get(number);
    if (inode.kind === 'directory') throw damaged(inode.where, 'a directory under another type');
    if (inode.links > 1) inode.links--;
    else this.#destroy(inode);
  }

  #destroy(inode: Inode): void {
    const { kind } = inode;
    const { trees, inodes } = this.#volume;
    this.#xattrs.free(inode);
    if (inode.hasFlag(EXTENTS_FLAG) || kind === 'file' || kind === 'directory') trees.free(inode);
    if (kind === 'directory') this.#directories.drop(inode.number);
    inodes.give(inode, kind === 'directory');
  }
}

function setAttributes(inode: Inode, attributes: Attributes): void {
  inode.mode = attributes.mode;
  inode.uid = attributes.uid;
  inode.gid = attributes.gid;
  inode.setTime('mtime', attributes.mtime);
  inode.setTime('atime', attributes.atime);
  inode.setTime('ctime', attributes.ctime);
}

/** @throws {ObdError} `InvalidArgument`. */
function checkName(name: Uint8Array): void {
  const isDots = name.length <= 2 && name.every((byte) => byte === 0x2e);
  if (name.length <= NAME_BYTES_MAX && !isDots && !name.includes(0) && !name.includes(0x2f)) return;
  throw new ObdError(ErrorCodes.InvalidArgument, `Cannot use ${quoted(name)} as a name`);
}

function quoted(name: Uint8Array): string {
  return JSON.stringify(Buffer.from(name.subarray(0, NAME_BYTES_MAX)).toString('latin1'));
}

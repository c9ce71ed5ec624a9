/**
 * One directory, with its names in memory: look-ups and additions need no walk through its blocks.
 *
 * The blocks are authoritative, and every change updates both; evicting this object loses nothing. Memory: some hundred
 * bytes a name.
 */

import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import {
  addEntry,
  clearBlock,
  entriesOf,
  entryBytes,
  putEntry,
  removeEntry,
  roomAt,
  roomIn,
} from './directory-block.js';
import { beyond, damaged } from './ext4-error.js';
import { appendExtent, type Extent } from './extent-tree.js';
import { type DirectoryBlocks, HashIndex } from './hash-index.js';
import { entryTypeOf, INDEX_FLAG, type Inode, type NodeKind } from './inode.js';
import type { Volume } from './volume.js';

/** 256 MiB: some ten million names, and all of them in memory. */
const DIRECTORY_BLOCKS_MAX = 65536;
/** As of ext4's dir_nlink: above that, a directory counts one link, for "many". */
const DIRECTORY_LINKS_MAX = 65000;
const DOT = Buffer.from('.');
const DOT_DOT = Buffer.from('..');
const DIRECTORY_TYPE = entryTypeOf('directory');

export interface Child {
  readonly inode: number;
  readonly isDirectory: boolean;
  /** The directory's own block, counted from 0, that the entry is in. */
  readonly block: number;
}

export class Directory {
  readonly #volume: Volume;
  readonly #number: number;
  /** Used once the inode's flag says that it has an index. */
  readonly #index: HashIndex;
  readonly #children = new Map<string, Child>();
  /** Where the directory's blocks are on the disk. */
  readonly #blocks: number[] = [];
  readonly #rooms: number[] = [];
  #extents: Extent[] = [];
  #nodes: readonly number[] = [];
  #subdirectories = 0;
  /** Blocks before this one are full, or were too full for the last name that was tried. */
  #firstRoom = 0;
  /** For each block, the entry added last: there is room behind it, most of the time. */
  readonly #lastAdded: number[] = [];

  private constructor(volume: Volume, number: number) {
    this.#volume = volume;
    this.#number = number;
    this.#index = new HashIndex(this.#ownBlocks(), volume.nameHash);
  }

  /** Makes an empty directory of a new inode; the caller sets its link count. */
  static make(volume: Volume, inode: Inode, parent: number): Directory {
    const directory = new Directory(volume, inode.number);
    const block = directory.#grow(inode);
    putEntry(block, 0, entryBytes(1), inode.number, DIRECTORY_TYPE, DOT);
    const at = entryBytes(1);
    putEntry(block, at, EXT4_BLOCK_BYTES - at, parent, DIRECTORY_TYPE, DOT_DOT);
    directory.#rooms[0] = roomIn(block, directory.#where(0));
    directory.#countLinks(inode);
    return directory;
  }

  /** @throws {ObdError} `Corrupt`, `Unsupported`. */
  static load(volume: Volume, number: number): Directory {
    const inode = volume.inodes.get(number);
    if (inode.kind !== 'directory') throw damaged(inode.where, `a ${inode.kind}, no directory`);
    const directory = new Directory(volume, number);
    const { extents, nodes } = volume.trees.read(inode);
    directory.#extents = [...extents];
    directory.#nodes = nodes;
    directory.#mapBlocks(inode);
    for (const block of directory.#blocks.keys()) directory.#readBlock(block);
    return directory;
  }

  /** Names in it. */
  get size(): number {
    return this.#children.size;
  }

  get(name: Uint8Array): Child | undefined {
    return this.#children.get(keyOf(name));
  }

  /** In the order of its blocks when it was read, then as they were added. */
  *entries(): Generator<{ readonly name: Uint8Array; readonly child: Child }> {
    for (const [key, child] of this.#children) yield { name: Buffer.from(key, 'latin1'), child };
  }

  /** The caller guarantees that the name is new. */
  add(name: Uint8Array, inode: number, kind: NodeKind): void {
    const block = this.#blockFor(name);
    this.#put(block, inode, entryTypeOf(kind), name);
    const isDirectory = kind === 'directory';
    this.#children.set(keyOf(name), { inode, isDirectory, block });
    if (!isDirectory) return;
    this.#subdirectories++;
    this.#countLinks(this.#volume.inodes.get(this.#number));
  }

  /** Returns a block that has room for `name` and may contain it. */
  #blockFor(name: Uint8Array): number {
    const wanted = entryBytes(name.length);
    const inode = this.#volume.inodes.get(this.#number);
    if (!this.#isIndexed(inode)) {
      while (this.#firstRoom < this.#blocks.length && this.#roomOf(this.#firstRoom) < wanted) {
        this.#firstRoom++;
      }
      if (this.#firstRoom < this.#blocks.length) return this.#firstRoom;
      if (this.#blocks.length > 1 || !this.#volume.canIndex) {
        clearBlock(this.#grow(inode));
        return this.#firstRoom;
      }
      this.#index.make();
      inode.setFlag(INDEX_FLAG);
      this.#reread(1);
    }
    let leaf = this.#index.leafOf(name);
    if (this.#roomOf(leaf) < wanted) {
      this.#reread(this.#index.split(name));
      this.#reread(leaf);
      leaf = this.#index.leafOf(name);
    }
    return leaf;
  }

  /** Whether its index is one that we can maintain; any other kind is turned off. */
  #isIndexed(inode: Inode): boolean {
    if (!inode.hasFlag(INDEX_FLAG)) return false;
    if (this.#volume.canIndex && HashIndex.isKept(this.#bytesOf(0))) return true;
    inode.clearFlag(INDEX_FLAG);
    return false;
  }

  #ownBlocks(): DirectoryBlocks {
    return {
      count: () => this.#blocks.length,
      where: `inode ${this.#number}`,
      bytes: (block) => this.#bytesOf(block),
      change: (block) => this.#change(block),
      grow: () => {
        this.#grow(this.#volume.inodes.get(this.#number));
        return this.#blocks.length - 1;
      },
    };
  }

  /** Names have moved to this block from another. */
  #reread(block: number): void {
    const bytes = this.#bytesOf(block);
    this.#lastAdded[block] = 0;
    this.#rooms[block] = roomIn(bytes, this.#where(block));
    for (const { inode, name } of entriesOf(bytes, this.#where(block))) {
      if (inode === 0) continue;
      const key = keyOf(name);
      const child = this.#children.get(key);
      if (child === undefined) throw damaged(this.#where(block), 'a name from nowhere');
      this.#children.set(key, { ...child, block });
    }
  }

  #roomOf(block: number): number {
    return this.#rooms[block] as number;
  }

  /** Consecutive names are placed behind each other, without a walk through the block. */
  #put(block: number, inode: number, type: number, name: Uint8Array): void {
    const bytes = this.#change(block);
    const where = this.#where(block);
    const last = this.#lastAdded[block] ?? 0;
    const isBehind = last > 0 && roomAt(bytes, last, where) >= entryBytes(name.length);
    const at = addEntry(bytes, where, isBehind ? last : 0, inode, type, name);
    this.#rooms[block] = isBehind ? roomAt(bytes, at, where) : roomIn(bytes, where);
    this.#lastAdded[block] = at;
  }

  /** The caller guarantees that the name exists. */
  remove(name: Uint8Array): void {
    const key = keyOf(name);
    const { block, isDirectory } = this.#children.get(key) as Child;
    const bytes = this.#change(block);
    removeEntry(bytes, this.#where(block), name);
    this.#lastAdded[block] = 0;
    this.#rooms[block] = roomIn(bytes, this.#where(block));
    this.#firstRoom = Math.min(this.#firstRoom, block);
    this.#children.delete(key);
    if (!isDirectory) return;
    this.#subdirectories--;
    this.#countLinks(this.#volume.inodes.get(this.#number));
  }

  /** "." and what its parent says for it, and ".." of every directory in it. */
  #countLinks(inode: Inode): void {
    const links = this.#subdirectories + 2;
    inode.links = links > DIRECTORY_LINKS_MAX ? 1 : links;
  }

  /** Adds a block at the end, for the caller to fill. */
  #grow(inode: Inode): Buffer {
    const logical = this.#blocks.length;
    if (logical === DIRECTORY_BLOCKS_MAX) {
      throw beyond(inode.where, `a directory of more than ${DIRECTORY_BLOCKS_MAX} blocks`);
    }
    const physical = this.#volume.allocator.takeMetadataBlock();
    appendExtent(this.#extents, logical, physical, 1);
    this.#nodes = this.#volume.trees.write(inode, this.#extents, this.#nodes);
    this.#blocks.push(physical);
    this.#rooms.push(EXT4_BLOCK_BYTES);
    inode.sizeBytes = this.#blocks.length * EXT4_BLOCK_BYTES;
    return this.#volume.cache.fresh(physical).bytes;
  }

  #mapBlocks(inode: Inode): void {
    const { sizeBytes, where } = inode;
    const count = sizeBytes / EXT4_BLOCK_BYTES;
    if (count > DIRECTORY_BLOCKS_MAX) throw beyond(where, `a directory of ${sizeBytes} bytes`);
    for (const { logical, physical, count: run, unwritten } of this.#extents) {
      if (logical !== this.#blocks.length || logical + run > count || unwritten) {
        throw damaged(where, 'a directory with holes, or with blocks beyond its end');
      }
      for (let i = 0; i < run; i++) this.#blocks.push(physical + i);
    }
    if (count === 0 || this.#blocks.length !== count) {
      throw damaged(where, `a directory of ${sizeBytes} bytes in ${this.#blocks.length} blocks`);
    }
  }

  #readBlock(block: number): void {
    const { cache } = this.#volume;
    const { bytes } = cache.get(this.#blocks[block] as number);
    const where = this.#where(block);
    this.#rooms.push(roomIn(bytes, where));
    let dots = 0;
    for (const { inode, type, name } of entriesOf(bytes, where)) {
      if (inode === 0) continue;
      if (name.length === 0) throw damaged(where, 'it has an entry without a name');
      if (block === 0 && dots < 2 && name.equals(dots === 0 ? DOT : DOT_DOT)) {
        dots++;
        continue;
      }
      const key = keyOf(name);
      if (this.#children.has(key)) throw damaged(where, `${JSON.stringify(key)} is there twice`);
      const isDirectory = type === DIRECTORY_TYPE;
      if (isDirectory) this.#subdirectories++;
      this.#children.set(key, { inode, isDirectory, block });
    }
    if (block === 0 && dots < 2) throw damaged(where, 'it does not begin with "." and ".."');
  }

  #bytesOf(block: number): Buffer {
    return this.#volume.cache.get(this.#blocks[block] as number).bytes;
  }

  #change(block: number): Buffer {
    const cached = this.#volume.cache.get(this.#blocks[block] as number);
    cached.dirty = true;
    return cached.bytes;
  }

  #where(block: number): string {
    return `inode ${this.#number}, directory block ${block}`;
  }
}

/** One character per byte: names are bytes, and a Map wants strings. */
function keyOf(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.length).toString('latin1');
}

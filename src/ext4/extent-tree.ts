/**
 * Maps an inode's content to blocks: a tree of extents, whose root is in the inode.
 *
 * Always read whole and written whole. Four extents fit into the inode, enough for a file that is allocated next-fit,
 * up to 512 MiB; so a tree with more nodes is rare, and is built from the bottom, every node full. Only directories
 * change theirs after that, by appending.
 *
 * Reading validates everything: depth, counts, order and ranges are checked, every node must cover at least one block,
 * and EXTENTS_MAX bounds memory and time for any damaged tree.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import type { BlockAllocator } from './block-allocator.js';
import { beyond, damaged } from './ext4-error.js';
import { EXTENTS_FLAG, type Inode } from './inode.js';
import type { MetadataCache } from './metadata-cache.js';
import type { Superblock } from './superblock.js';

/** In blocks. `unwritten` extents (fallocate) hold space and read as zeroes. */
export interface Extent {
  readonly logical: number;
  readonly physical: number;
  readonly count: number;
  readonly unwritten: boolean;
}

export interface BlockMap {
  /** Ascending, not overlapping. */
  readonly extents: readonly Extent[];
  /** The blocks of the tree itself. */
  readonly nodes: readonly number[];
}

/** 24 MiB of them, and 4 GiB of file even if no two blocks are neighbours. */
const EXTENTS_MAX = 1 << 20;
export const EXTENT_BLOCKS_MAX = 32768;
const MAGIC = 0xf30a;
const DEPTH_MAX = 5;
const HEADER_BYTES = 12;
const RECORD_BYTES = 12;
const ROOT_RECORDS = 4;
const NODE_RECORDS = Math.floor((EXT4_BLOCK_BYTES - HEADER_BYTES) / RECORD_BYTES);

/** Appends blocks to a list of extents, joining them to the last one where they follow it. */
export function appendExtent(
  extents: Extent[],
  logical: number,
  physical: number,
  count: number,
): void {
  const last = extents.at(-1);
  if (
    last !== undefined &&
    last.logical + last.count === logical &&
    last.physical + last.count === physical &&
    last.count + count <= EXTENT_BLOCKS_MAX
  ) {
    extents[extents.length - 1] = { ...last, count: last.count + count };
    return;
  }
  if (extents.length === EXTENTS_MAX) {
    throw beyond('a file', `it is in more than ${EXTENTS_MAX} pieces`);
  }
  extents.push({ logical, physical, count, unwritten: false });
}

export class ExtentTrees {
  readonly #cache: MetadataCache;
  readonly #superblock: Superblock;
  readonly #allocator: BlockAllocator;

  constructor(cache: MetadataCache, superblock: Superblock, allocator: BlockAllocator) {
    this.#cache = cache;
    this.#superblock = superblock;
    this.#allocator = allocator;
  }

  /** @throws {ObdError} `Corrupt`, `Unsupported`. */
  read(inode: Inode): BlockMap {
    if (!inode.hasFlag(EXTENTS_FLAG)) {
      throw beyond(inode.where, 'its blocks are not mapped by extents');
    }
    const found = { extents: [] as Extent[], nodes: [] as number[] };
    const depth = inode.blockMap.readUInt16LE(6);
    if (depth > DEPTH_MAX) throw damaged(inode.where, `its extent tree is ${depth} deep`);
    this.#readNode(inode.where, inode.blockMap, depth, found);
    return found;
  }

  /**
   * Makes `extents` the content of `inode`, reusing the nodes of the old tree, and counts its blocks.
   *
   * @returns the nodes of the new tree.
   */
  write(inode: Inode, extents: readonly Extent[], oldNodes: readonly number[]): number[] {
    const spare = [...oldNodes];
    const nodes: number[] = [];
    let depth = 0;
    let records = extents.map(leafRecord);
    while (records.length > ROOT_RECORDS) {
      const parents: Buffer[] = [];
      for (let at = 0; at < records.length; at += NODE_RECORDS) {
        const children = records.slice(at, at + NODE_RECORDS);
        const number = spare.shift() ?? this.#allocator.takeMetadataBlock();
        nodes.push(number);
        fillNode(this.#cache.fresh(number).bytes, children, NODE_RECORDS, depth);
        parents.push(indexRecord((children[0] as Buffer).readUInt32LE(0), number));
      }
      records = parents;
      depth++;
    }
    for (const number of spare) this.#allocator.free(number, 1);
    inode.blockMap.fill(0);
    fillNode(inode.blockMap, records, ROOT_RECORDS, depth);
    inode.setFlag(EXTENTS_FLAG);
    const content = extents.reduce((sum, extent) => sum + extent.count, 0);
    inode.blocks = content + nodes.length + (inode.xattrBlock === 0 ? 0 : 1);
    return nodes;
  }

  /** Frees all content and the tree. Leaves the inode unchanged. */
  free(inode: Inode): void {
    const { extents, nodes } = this.read(inode);
    for (const extent of extents) this.#allocator.free(extent.physical, extent.count);
    for (const number of nodes) this.#allocator.free(number, 1);
  }

  #readNode(
    where: string,
    node: Buffer,
    depth: number,
    found: { extents: Extent[]; nodes: number[] },
  ): void {
    const records = node.readUInt16LE(2);
    const room = Math.floor((node.length - HEADER_BYTES) / RECORD_BYTES);
    const empty = records === 0 && found.nodes.length > 0;
    if (
      node.readUInt16LE(0) !== MAGIC ||
      records > room ||
      empty ||
      node.readUInt16LE(6) !== depth
    ) {
      throw damaged(where, 'a node of its extent tree has a wrong header');
    }
    for (let i = 0; i < records; i++) {
      const at = HEADER_BYTES + i * RECORD_BYTES;
      if (depth === 0) this.#readExtent(where, node, at, found.extents);
      else this.#readChild(where, node, at, depth, found);
    }
  }

  #readExtent(where: string, node: Buffer, at: number, extents: Extent[]): void {
    const length = node.readUInt16LE(at + 4);
    const unwritten = length > EXTENT_BLOCKS_MAX;
    const count = unwritten ? length - EXTENT_BLOCKS_MAX : length;
    const logical = node.readUInt32LE(at);
    const physical = node.readUInt32LE(at + 8);
    const last = extents.at(-1);
    const follows = last === undefined || logical >= last.logical + last.count;
    if (node.readUInt16LE(at + 6) !== 0 || !follows || !this.#isOnDisk(physical, count)) {
      throw damaged(where, `its extent at block ${logical} overlaps another or leaves the disk`);
    }
    if (extents.length === EXTENTS_MAX)
      throw beyond(where, `it has more than ${EXTENTS_MAX} extents`);
    extents.push({ logical, physical, count, unwritten });
  }

  #readChild(
    where: string,
    node: Buffer,
    at: number,
    depth: number,
    found: { extents: Extent[]; nodes: number[] },
  ): void {
    const number = node.readUInt32LE(at + 4);
    if (node.readUInt16LE(at + 8) !== 0 || !this.#isOnDisk(number, 1)) {
      throw damaged(where, `its extent tree has a node at block ${number}`);
    }
    found.nodes.push(number);
    this.#readNode(where, this.#cache.get(number).bytes, depth - 1, found);
  }

  #isOnDisk(start: number, count: number): boolean {
    return start > 0 && count > 0 && start + count <= this.#superblock.blocks;
  }
}

function leafRecord(extent: Extent): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  record.writeUInt32LE(extent.logical, 0);
  record.writeUInt16LE(extent.count + (extent.unwritten ? EXTENT_BLOCKS_MAX : 0), 4);
  record.writeUInt32LE(extent.physical, 8);
  return record;
}

function indexRecord(logical: number, node: number): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  record.writeUInt32LE(logical, 0);
  record.writeUInt32LE(node, 4);
  return record;
}

function fillNode(target: Buffer, records: readonly Buffer[], room: number, depth: number): void {
  target.writeUInt16LE(MAGIC, 0);
  target.writeUInt16LE(records.length, 2);
  target.writeUInt16LE(room, 4);
  target.writeUInt16LE(depth, 6);
  for (const [i, record] of records.entries()) target.set(record, HEADER_BYTES + i * RECORD_BYTES);
}

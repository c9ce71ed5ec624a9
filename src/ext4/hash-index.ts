/**
 * The index (htree) of a directory of more than one block. It maps the hash of a name to the block of the name, so that
 * the kernel reads two or three blocks of a large directory to find a name, or its absence.
 *
 *   block 0      ".", "..", then the root: pairs of hash and block, ascending
 *   one level    where the root is full: nodes, the same pairs
 *   other blocks leaves: names of the hashes from their own up to the next
 *
 * To a reader without support for indexes, root and nodes look like blocks without names. A leaf without room is split
 * in two halves by hash; no other entry moves, so a name added changes one block, or three.
 */
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { addEntry, clearBlock, entriesOf, entryBytes } from './directory-block.js';
import { beyond, damaged } from './ext4-error.js';
import type { NameHash } from './name-hash.js';

export const HALF_MD4 = 1;
/** Of the root: reserved (32 bits), hash, own length, levels, flags. */
const INFO_AT = 24;
const INFO_BYTES = 8;
const ROOT_PAIRS_AT = INFO_AT + INFO_BYTES;
/** Nodes begin with an entry without an inode, as long as the block. */
const NODE_PAIRS_AT = 8;
const PAIR_BYTES = 8;

/** The blocks of a directory, counted from 0. */
export interface DirectoryBlocks {
  count(): number;
  readonly where: string;
  bytes(block: number): Buffer;
  /** The bytes of a block that will be changed. */
  change(block: number): Buffer;
  /** Adds a block at the end and returns its number. */
  grow(): number;
}

export class HashIndex {
  readonly #blocks: DirectoryBlocks;
  readonly #hash: NameHash;

  constructor(blocks: DirectoryBlocks, hash: NameHash) {
    this.#blocks = blocks;
    this.#hash = hash;
  }

  /** Whether this is a root that we can maintain: half-MD4, and no more levels than ext4 has by default. */
  static isKept(root: Buffer): boolean {
    return (
      root.readUInt16LE(4) === entryBytes(1) &&
      root.readUInt16LE(16) === EXT4_BLOCK_BYTES - entryBytes(1) &&
      root.readUInt32LE(INFO_AT) === 0 &&
      root.readUInt8(INFO_AT + 4) === HALF_MD4 &&
      root.readUInt8(INFO_AT + 5) === INFO_BYTES &&
      root.readUInt8(INFO_AT + 6) <= 1
    );
  }

  /** Turns the only block of a directory into a root, and its names into a leaf, which is block 1. */
  make(): void {
    const blocks = this.#blocks;
    const leaf = blocks.change(blocks.grow());
    const root = blocks.change(0);
    clearBlock(leaf);
    // The first two are the dots.
    for (const entry of [...entriesOf(root, blocks.where)].slice(2)) {
      if (entry.inode !== 0) addEntry(leaf, blocks.where, 0, entry.inode, entry.type, entry.name);
    }
    root.fill(0, INFO_AT);
    root.writeUInt16LE(EXT4_BLOCK_BYTES - entryBytes(1), 16);
    root.writeUInt8(HALF_MD4, INFO_AT + 4);
    root.writeUInt8(INFO_BYTES, INFO_AT + 5);
    new Pairs(0, ROOT_PAIRS_AT, blocks).fill([{ hash: 0, block: 1 }]);
  }

  /** Returns the block that contains `name`, or would. */
  leafOf(name: Uint8Array): number {
    const hash = this.#hash.of(name);
    const pairs = this.#lowest(hash);
    return pairs.at(pairs.find(hash)).block;
  }

  /**
   * Splits the leaf of `name`.
   *
   * @returns The new block; its names were in that leaf.
   */
  split(name: Uint8Array): number {
    const hash = this.#hash.of(name);
    this.#makeRoomForPair(hash);
    const pairs = this.#lowest(hash);
    const at = pairs.find(hash);
    const created = this.#blocks.grow();
    const { upperHash, isContinued } = this.#halve(pairs.at(at).block, created);
    // An odd hash: names of this hash are in the block before as well.
    pairs.insert(at + 1, { hash: upperHash + (isContinued ? 1 : 0), block: created });
    return created;
  }

  /** Moves the upper half of a leaf, by hash, to a new block. */
  #halve(leaf: number, created: number): { upperHash: number; isContinued: boolean } {
    const { where } = this.#blocks;
    const lower = this.#blocks.change(leaf);
    const entries = [...entriesOf(Buffer.from(lower), where)]
      .filter((entry) => entry.inode !== 0)
      .map((entry) => ({ ...entry, hash: this.#hash.of(entry.name) }))
      .sort((a, b) => a.hash - b.hash);
    const total = entries.reduce((sum, { name }) => sum + entryBytes(name.length), 0);
    let middle = 0;
    for (let bytes = 0; bytes < total / 2; middle++) {
      bytes += entryBytes((entries[middle] as { name: Buffer }).name.length);
    }
    const before = entries[middle - 1];
    const after = entries[middle];
    if (before === undefined || after === undefined)
      throw damaged(where, 'a full leaf of one name');
    const fill = (target: Buffer, part: typeof entries): void => {
      clearBlock(target);
      let last = 0;
      for (const { inode, type, name } of part) {
        last = addEntry(target, where, last, inode, type, name);
      }
    };
    fill(lower, entries.slice(0, middle));
    fill(this.#blocks.change(created), entries.slice(middle));
    return { upperHash: after.hash, isContinued: before.hash === after.hash };
  }

  get #root(): Pairs {
    return new Pairs(0, ROOT_PAIRS_AT, this.#blocks);
  }

  get #hasNodes(): boolean {
    return this.#blocks.bytes(0).readUInt8(INFO_AT + 6) === 1;
  }

  #node(block: number): Pairs {
    return new Pairs(block, NODE_PAIRS_AT, this.#blocks);
  }

  /** The pairs that point to the leaf of `hash`. */
  #lowest(hash: number): Pairs {
    const root = this.#root;
    return this.#hasNodes ? this.#node(root.at(root.find(hash)).block) : root;
  }

  #makeRoomForPair(hash: number): void {
    const full = this.#lowest(hash);
    if (!full.isFull) return;
    const created = this.#blocks.grow();
    clearBlock(this.#blocks.change(created));
    const node = this.#node(created);
    const all = full.all();
    const root = this.#root;
    if (!this.#hasNodes) {
      node.fill(all);
      root.fill([{ hash: 0, block: created }]);
      this.#blocks.change(0).writeUInt8(1, INFO_AT + 6);
      this.#makeRoomForPair(hash);
      return;
    }
    if (root.isFull) throw beyond(this.#blocks.where, 'its index is full');
    const middle = Math.floor(all.length / 2);
    const upper = all.slice(middle);
    full.fill(all.slice(0, middle));
    node.fill(upper);
    root.insert(root.find(hash) + 1, { hash: (upper[0] as Pair).hash, block: created });
  }
}

interface Pair {
  readonly hash: number;
  readonly block: number;
}

/** The pairs of a root or node. The first has no hash: its place holds limit and count. */
class Pairs {
  readonly #block: number;
  readonly #bytes: Buffer;
  readonly #start: number;
  readonly #blocks: DirectoryBlocks;

  constructor(block: number, start: number, blocks: DirectoryBlocks) {
    this.#block = block;
    this.#bytes = blocks.bytes(block);
    this.#start = start;
    this.#blocks = blocks;
  }

  get isFull(): boolean {
    return this.#count === this.#limit;
  }

  at(index: number): Pair {
    const at = this.#start + index * PAIR_BYTES;
    const block = this.#bytes.readUInt32LE(at + 4);
    if (block < 1 || block >= this.#blocks.count()) {
      throw damaged(this.#blocks.where, `its index points to block ${block}`);
    }
    return { hash: index === 0 ? 0 : this.#bytes.readUInt32LE(at), block };
  }

  all(): Pair[] {
    return Array.from({ length: this.#checkedCount }, (_, index) => this.at(index));
  }

  /** The last pair whose hash is not above `hash`. */
  find(hash: number): number {
    let low = 1;
    let high = this.#checkedCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#bytes.readUInt32LE(this.#start + middle * PAIR_BYTES) > hash) high = middle;
      else low = middle + 1;
    }
    return low - 1;
  }

  insert(index: number, pair: Pair): void {
    const all = this.all();
    all.splice(index, 0, pair);
    this.fill(all);
  }

  fill(pairs: readonly Pair[]): void {
    this.#blocks.change(this.#block).fill(0, this.#start);
    for (const [index, { hash, block }] of pairs.entries()) {
      this.#bytes.writeUInt32LE(hash, this.#start + index * PAIR_BYTES);
      this.#bytes.writeUInt32LE(block, this.#start + index * PAIR_BYTES + 4);
    }
    this.#bytes.writeUInt16LE(this.#limit, this.#start);
    this.#bytes.writeUInt16LE(pairs.length, this.#start + 2);
  }

  get #limit(): number {
    return (EXT4_BLOCK_BYTES - this.#start) / PAIR_BYTES;
  }

  get #count(): number {
    return this.#bytes.readUInt16LE(this.#start + 2);
  }

  get #checkedCount(): number {
    const limit = this.#bytes.readUInt16LE(this.#start);
    if (limit === this.#limit && this.#count >= 1 && this.#count <= limit) return this.#count;
    throw damaged(this.#blocks.where, `its index counts ${this.#count} of ${limit} blocks`);
  }
}

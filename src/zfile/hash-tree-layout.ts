/**
 * Where the nodes of a hash tree are stored, and the header in front of them: docs/formats/hash-tree.md.
 *
 *   header 512 | the top node | the nodes of each level below | ... | the nodes of the bottom level
 *
 * A node is 4 KiB: the hashes of 128 leaves, or of 128 nodes of the level below. The bottom level begins with its last two
 * nodes, and continues with node 0: so the hashes of both ends of the file, which opening a layer reads, follow the header.
 */
import { createHash } from 'node:crypto';

export const LEAF_BYTES = 4096;
export const HASH_BYTES = 32;
export const TREE_HEADER_BYTES = 512;
export const NODE_BYTES = 4096;
export const HASHES_PER_NODE = NODE_BYTES / HASH_BYTES;
/** Nodes of the bottom level that are stored before its first one. */
const ROTATED_NODES = 2;

const MAGIC = Buffer.from('OBDTREE\0', 'latin1');
const VERSION = 1;

/** What the root proves of a layer. */
export interface TreeHeader {
  /** How many bytes the leaves cover: the decompressed ZFile. */
  readonly leafedBytes: number;
  /** Hash of the top node; of the only leaf where there is no node. */
  readonly topHash: Buffer;
  /** Hash of the first HEAD_BYTES of the blob: the headers of tar and ZFile. */
  readonly headHash: Buffer;
  /** Hash of the ZFile's index. */
  readonly indexHash: Buffer;
}

/** Bytes of a blob that its tree's header hash covers: three headers of the tar, and the ZFile's. */
export const PROVED_HEAD_BYTES = 2048;

export class TreeLayout {
  /** How many nodes each level has, bottom level first. Empty for a single leaf. */
  readonly levels: readonly number[];
  /** Bytes of the whole tree, its header included. */
  readonly bytes: number;
  readonly #starts: readonly number[];

  constructor(leafedBytes: number) {
    const levels: number[] = [];
    let count = Math.ceil(leafedBytes / LEAF_BYTES);
    while (count > 1) {
      count = Math.ceil(count / HASHES_PER_NODE);
      levels.push(count);
    }
    const starts: number[] = [];
    let at = TREE_HEADER_BYTES;
    for (let level = levels.length - 1; level >= 0; level--) {
      starts[level] = at;
      at += levels[level]! * NODE_BYTES;
    }
    this.levels = levels;
    this.bytes = at;
    this.#starts = starts;
  }

  /** The byte of the tree where node `index` of a level begins. */
  offsetOf(level: number, index: number): number {
    const count = this.levels[level]!;
    const place = level > 0 || count <= ROTATED_NODES ? index : (index + ROTATED_NODES) % count;
    return this.#starts[level]! + place * NODE_BYTES;
  }
}

/**
 * How many bytes of a tree hold its header, the nodes above the bottom level, and the first of those that prove the ends of the
 * file: what opening a layer needs.
 *
 * @param treeBytes - The whole tree.
 * @param headBytes - How much of the beginning of the file is read then.
 */
export function firstTreeBytes(treeBytes: number, headBytes: number): number {
  const nodes = Math.ceil((treeBytes - TREE_HEADER_BYTES) / NODE_BYTES);
  const upper = Math.ceil(nodes / HASHES_PER_NODE) + 2;
  const bottom = ROTATED_NODES + Math.ceil(headBytes / (LEAF_BYTES * HASHES_PER_NODE));
  return Math.min(treeBytes, TREE_HEADER_BYTES + (upper + bottom) * NODE_BYTES);
}

export function encodeTreeHeader(header: TreeHeader): Buffer {
  const bytes = Buffer.alloc(TREE_HEADER_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(LEAF_BYTES, 12);
  bytes.writeBigUInt64LE(BigInt(header.leafedBytes), 16);
  bytes.set(header.topHash, 32);
  bytes.set(header.headHash, 64);
  bytes.set(header.indexHash, 96);
  return bytes;
}

/** Undefined for bytes that are no header of a tree, or of one that this build does not know. */
export function parseTreeHeader(bytes: Buffer): TreeHeader | undefined {
  if (bytes.length !== TREE_HEADER_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) return undefined;
  if (bytes.readUInt32LE(8) !== VERSION || bytes.readUInt32LE(12) !== LEAF_BYTES) return undefined;
  const leafedBytes = Number(bytes.readBigUInt64LE(16));
  if (!Number.isSafeInteger(leafedBytes)) return undefined;
  const hashAt = (at: number) => Buffer.from(bytes.subarray(at, at + HASH_BYTES));
  return { leafedBytes, topHash: hashAt(32), headHash: hashAt(64), indexHash: hashAt(96) };
}

/** The root: what the image's manifest names, as `sha256:...`. */
export function rootOf(header: Uint8Array): string {
  return `sha256:${createHash('sha256').update(header).digest('hex')}`;
}

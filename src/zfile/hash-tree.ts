/**
 * Proves leaves of a layer by its hash tree, from a root that the image's manifest names (docs/formats/hash-tree.md).
 *
 * Nodes are read as they are needed. Each is compared with its hash in the node above before one of its own hashes counts;
 * proved nodes are kept in the DecodedBlocks that all files of this thread share. So a leaf has the right hash, whatever
 * bytes the blob's source sent for leaf and nodes.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully, type StoredRange } from '../io/random-access-file.js';
import type { DecodedBlocks } from './decoded-blocks.js';
import {
  HASH_BYTES,
  HASHES_PER_NODE,
  LEAF_BYTES,
  NODE_BYTES,
  parseTreeHeader,
  rootOf,
  TREE_HEADER_BYTES,
  type TreeHeader,
  TreeLayout,
} from './hash-tree-layout.js';
import { firstWrongLeaf } from './leaf-hashes.js';

/** Where an image says that the tree of a layer is. */
export interface TreeAddress {
  /** `sha256:...`, the hash of the tree's header. */
  readonly root: string;
  /** The byte of the blob where the header begins. */
  readonly offset: number;
}

/** Instead of a position or a number of a leaf: bytes of the tree have to be loaded first. */
export const NODE_NOT_LOCAL = -2;

export class HashTree {
  readonly header: TreeHeader;
  /** The header as it is stored: what {@link root} is the hash of. */
  readonly headerBytes: Buffer;
  readonly root: string;
  /** Holds the layer and the tree. */
  readonly blob: RandomAccessFile;
  readonly #offset: number;
  readonly #layout: TreeLayout;
  readonly #decoded: DecodedBlocks;
  /** The name of each level in #decoded. */
  readonly #names: readonly number[];
  readonly #expected = Buffer.alloc(HASH_BYTES);

  private constructor(
    blob: RandomAccessFile,
    { root, offset }: TreeAddress,
    headerBytes: Buffer,
    header: TreeHeader,
    layout: TreeLayout,
    decoded: DecodedBlocks,
  ) {
    this.header = header;
    this.headerBytes = headerBytes;
    this.root = root;
    this.blob = blob;
    this.#offset = offset;
    this.#layout = layout;
    this.#decoded = decoded;
    this.#names = layout.levels.map(() => decoded.nameFile());
  }

  /**
   * Reads the header of a tree, and proves it.
   *
   * @param blob - The caller keeps it, and closes it after the last use of the tree.
   * @throws {ObdError} `Corrupt`, `Unsupported`, and read errors of `blob`.
   */
  static async open(
    blob: RandomAccessFile,
    address: TreeAddress,
    decoded: DecodedBlocks,
  ): Promise<HashTree> {
    const { offset, root } = address;
    if (offset + TREE_HEADER_BYTES > blob.sizeBytes) {
      throw corrupt(
        blob,
        offset,
        `no hash tree can begin here, as the blob ends at ${blob.sizeBytes}`,
      );
    }
    const bytes = Buffer.alloc(TREE_HEADER_BYTES);
    await refetchWhileCorrupt(blob, offset, bytes.length, async () => {
      await readFully(blob, bytes, offset);
      const found = rootOf(bytes);
      if (found === root) return;
      throw corrupt(
        blob,
        offset,
        `the root of its hash tree is ${found}, and the image names ${root}`,
      );
    });
    const header = parseTreeHeader(bytes);
    if (header === undefined) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot read ${blob.label} at ${offset}: its hash tree has a form that this build does not know; update obd-blockd`,
        { path: blob.label, offset },
      );
    }
    const layout = new TreeLayout(header.leafedBytes);
    if (offset + layout.bytes > blob.sizeBytes) {
      throw corrupt(
        blob,
        offset,
        `a hash tree of ${layout.bytes} bytes passes the end of the blob`,
      );
    }
    return new HashTree(blob, address, bytes, header, layout, decoded);
  }

  /**
   * Compares target[at, at + bytes) with the leaves from byte `offset` of the file on.
   *
   * @param offset - Where a leaf begins.
   * @returns The byte, counted from `at`, of the first leaf that is wrong; -1 if all are right; {@link NODE_NOT_LOCAL}.
   * @throws {ObdError} `Corrupt` for a node of the tree.
   */
  firstWrong(target: Uint8Array, at: number, offset: number, bytes: number): number {
    for (let done = 0; done < bytes; ) {
      const leaf = (offset + done) / LEAF_BYTES;
      const node = Math.floor(leaf / HASHES_PER_NODE);
      const first = leaf - node * HASHES_PER_NODE;
      const part = Math.min(bytes - done, (HASHES_PER_NODE - first) * LEAF_BYTES);
      const position = this.#hashesOf(0, node);
      if (position === NODE_NOT_LOCAL) return NODE_NOT_LOCAL;
      const hashes = position === -1 ? this.header.topHash : this.#decoded.bytes;
      const hashesAt = position === -1 ? 0 : position + first * HASH_BYTES;
      const wrong = firstWrongLeaf(target, at + done, part, hashes, hashesAt);
      if (wrong !== -1) return done + wrong * LEAF_BYTES;
      done += part;
    }
    return -1;
  }

  /**
   * Reads a node and those above it, and proves them.
   *
   * @param level - 0 is the bottom level.
   * @throws {ObdError} `Corrupt`, and read errors of the blob.
   */
  async readNode(level: number, node: number): Promise<Buffer> {
    const isTop = level === this.#layout.levels.length - 1;
    const parent = Math.floor(node / HASHES_PER_NODE);
    const hashes = isTop ? this.header.topHash : await this.readNode(level + 1, parent);
    const hashAt = isTop ? 0 : (node % HASHES_PER_NODE) * HASH_BYTES;
    const bytes = Buffer.alloc(NODE_BYTES);
    const at = this.#offset + this.#layout.offsetOf(level, node);
    await refetchWhileCorrupt(this.blob, at, NODE_BYTES, async () => {
      await readFully(this.blob, bytes, at);
      if (firstWrongLeaf(bytes, 0, NODE_BYTES, hashes, hashAt) === -1) return;
      throw this.#wrongNode(level, node);
    });
    return bytes;
  }

  /** Loads the nodes that prove [offset, offset + length) of the file, as RandomAccessFile.load() does. */
  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    const loads: Promise<void>[] = [];
    for (const { level, node } of this.#nodesOf(offset, length)) {
      if (this.#decoded.find(this.#names[level]!, node, NODE_BYTES) !== -1) continue;
      const at = this.#offset + this.#layout.offsetOf(level, node);
      loads.push(this.blob.load(at, NODE_BYTES, deadlineMs));
    }
    await Promise.all(loads);
  }

  /** Where the nodes are stored that prove [offset, offset + length) of the file. */
  storedRanges(offset: number, length: number): StoredRange[] {
    return [...this.#nodesOf(offset, length)].map(({ level, node }) => {
      const at = this.#offset + this.#layout.offsetOf(level, node);
      return { blob: this.blob, offset: at, length: NODE_BYTES };
    });
  }

  /** Drops the stored bytes of the first wrong node that [offset, offset + length) needs. Returns whether there was one. */
  invalidateWrong(offset: number, length: number): boolean {
    for (const { level, node } of this.#nodesOf(offset, length)) {
      if (this.#position(level, node) !== undefined) continue;
      const at = this.#offset + this.#layout.offsetOf(level, node);
      return this.blob.invalidate(at, NODE_BYTES);
    }
    return false;
  }

  /** The nodes that prove a range, top level first. */
  *#nodesOf(offset: number, length: number): Iterable<{ level: number; node: number }> {
    const { levels } = this.#layout;
    for (let level = levels.length - 1; level >= 0; level--) {
      const leafBytes = LEAF_BYTES * HASHES_PER_NODE ** (level + 1);
      const end = Math.min(levels[level]!, Math.ceil((offset + length) / leafBytes));
      for (let node = Math.floor(offset / leafBytes); node < end; node++) yield { level, node };
    }
  }

  /** The position in the shared cache of a proved node, -1 for a level above the top. @throws {ObdError} `Corrupt`. */
  #hashesOf(level: number, node: number): number {
    const position = this.#position(level, node);
    if (position !== undefined) return position;
    throw this.#wrongNode(level, node);
  }

  #wrongNode(level: number, node: number): ObdError {
    const at = this.#offset + this.#layout.offsetOf(level, node);
    return corrupt(this.blob, at, `node ${node} of level ${level} of its hash tree is wrong`);
  }

  /** As #hashesOf(), but undefined for a wrong node of this level. */
  #position(level: number, node: number): number | undefined {
    if (level === this.#layout.levels.length) return -1;
    const name = this.#names[level]!;
    const found = this.#decoded.find(name, node, NODE_BYTES);
    if (found !== -1) return found;
    const above = this.#hashesOf(level + 1, Math.floor(node / HASHES_PER_NODE));
    if (above === NODE_NOT_LOCAL) return NODE_NOT_LOCAL;
    // Copied, as the place for this node may be taken from the one above.
    if (above === -1) this.#expected.set(this.header.topHash);
    else this.#decoded.bytes.copy(this.#expected, 0, ...hashRange(above, node));
    const position = this.#decoded.reserve(name, node, NODE_BYTES);
    const bytes = this.#decoded.bytes.subarray(position, position + NODE_BYTES);
    const at = this.#offset + this.#layout.offsetOf(level, node);
    if (!this.blob.tryRead(bytes, at)) return NODE_NOT_LOCAL;
    if (firstWrongLeaf(bytes, 0, NODE_BYTES, this.#expected, 0) !== -1) return undefined;
    this.#decoded.keep(position, NODE_BYTES);
    return position;
  }
}

function hashRange(above: number, node: number): [number, number] {
  const from = above + (node % HASHES_PER_NODE) * HASH_BYTES;
  return [from, from + HASH_BYTES];
}

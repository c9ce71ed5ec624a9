/**
 * Computes the hash tree of the bytes that are written through it: a sink in front of a ZFileWriter.
 *
 * Memory: 32 bytes per 4 KiB written, 8 MiB for a layer of 1 GiB.
 */
import {
  encodeTreeHeader,
  HASH_BYTES,
  LEAF_BYTES,
  NODE_BYTES,
  rootOf,
  type TreeHeader,
  TreeLayout,
} from './hash-tree-layout.js';
import { hashLeaves } from './leaf-hashes.js';

const HASHES_BYTES_MIN = 1 << 16;

export class HashTreeWriter {
  readonly #sink: { write(bytes: Uint8Array): void };
  readonly #leaf = Buffer.alloc(LEAF_BYTES);
  #hashes = Buffer.alloc(HASHES_BYTES_MIN);
  #leaves = 0;
  #bytesIn = 0;

  constructor(sink: { write(bytes: Uint8Array): void }) {
    this.#sink = sink;
  }

  write(bytes: Uint8Array): void {
    this.#sink.write(bytes);
    let at = 0;
    const begun = this.#bytesIn % LEAF_BYTES;
    this.#bytesIn += bytes.length;
    if (begun > 0) {
      at = Math.min(bytes.length, LEAF_BYTES - begun);
      this.#leaf.set(bytes.subarray(0, at), begun);
      if (begun + at < LEAF_BYTES) return;
      this.#add(this.#leaf, 0, LEAF_BYTES);
    }
    const whole = bytes.length - at - ((bytes.length - at) % LEAF_BYTES);
    this.#add(bytes, at, whole);
    this.#leaf.set(bytes.subarray(at + whole), 0);
  }

  /**
   * Call it once, after the last write.
   *
   * @returns The tree as it is stored, and its root.
   */
  finish({ headHash, indexHash }: Pick<TreeHeader, 'headHash' | 'indexHash'>): {
    readonly tree: Buffer;
    readonly root: string;
  } {
    this.#add(this.#leaf, 0, this.#bytesIn % LEAF_BYTES);
    const layout = new TreeLayout(this.#bytesIn);
    const tree = Buffer.alloc(layout.bytes);
    let hashes = this.#hashes.subarray(0, this.#leaves * HASH_BYTES);
    for (const [level, count] of layout.levels.entries()) {
      const above = Buffer.alloc(count * HASH_BYTES);
      for (let node = 0; node < count; node++) {
        const at = layout.offsetOf(level, node);
        // Nodes are as large as leaves, so one function hashes both.
        hashes.copy(tree, at, node * NODE_BYTES, (node + 1) * NODE_BYTES);
        hashLeaves(tree, at, NODE_BYTES, above, node * HASH_BYTES);
      }
      hashes = above;
    }
    const header = { leafedBytes: this.#bytesIn, topHash: hashes, headHash, indexHash };
    const encoded = encodeTreeHeader(header);
    tree.set(encoded, 0);
    return { tree, root: rootOf(encoded) };
  }

  /** Hashes source[at, at + bytes): whole leaves, or the last one. */
  #add(source: Uint8Array, at: number, bytes: number): void {
    const count = Math.ceil(bytes / LEAF_BYTES);
    if (count === 0) return;
    const used = this.#leaves * HASH_BYTES;
    const needed = used + count * HASH_BYTES;
    if (needed > this.#hashes.length) {
      const grown = Buffer.alloc(Math.max(needed, 2 * this.#hashes.length));
      this.#hashes.copy(grown);
      this.#hashes = grown;
    }
    hashLeaves(source, at, bytes, this.#hashes, used);
    this.#leaves += count;
  }
}

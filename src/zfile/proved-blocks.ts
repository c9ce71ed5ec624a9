/**
 * Which blocks of a ZFile a hash tree has proved, so that the next read of the same stored bytes checks only their CRC.
 *
 * A bit per block, and for each chunk of the blob the version of its stored bytes (RandomAccessFile.versionOf) that the
 * bits are about. Where a chunk has another version, because it was evicted and fetched again, the bits of all blocks
 * that touch it are cleared. Bytes without a version, which found no space on the disk, are proved by every read. Nothing
 * is written to the disk: after a restart every block is proved by its first read.
 *
 * A version is loaded before the bytes are read and again after: only if both are the same are the bytes that version's.
 *
 * Cost of a read of proved blocks: two look-ups of a version per chunk, and a bit per block. Memory: a bit per block,
 * 4 bytes per chunk.
 */
import { CHUNK_BYTES, type RandomAccessFile } from '../io/random-access-file.js';
import type { BlockTable } from './block-table.js';
import { type HashTree, NODE_NOT_LOCAL } from './hash-tree.js';
import { HEADER_BYTES, type ZFileLayout } from './zfile-header.js';

export class ProvedBlocks {
  readonly tree: HashTree;
  readonly #blob: RandomAccessFile;
  readonly #payloadAt: number;
  readonly #table: BlockTable;
  readonly #blockBytes: number;
  readonly #bits: Uint8Array;
  readonly #versions: Int32Array;
  /** Of the run between begin() and finish(): its chunks, and whether all have versions. Reads do not interleave. */
  #first = 0;
  #end = 0;
  #isVersioned = false;

  /** @param payloadAt - The byte of the tree's blob where the ZFile begins. */
  constructor(tree: HashTree, payloadAt: number, table: BlockTable, layout: ZFileLayout) {
    this.tree = tree;
    this.#blob = tree.blob;
    this.#payloadAt = payloadAt;
    this.#table = table;
    this.#blockBytes = layout.blockBytes;
    this.#bits = new Uint8Array(Math.ceil(layout.blocks / 8));
    this.#versions = new Int32Array(chunksOf(payloadAt, layout));
  }

  static memoryBytes(payloadAt: number, layout: ZFileLayout): number {
    return Math.ceil(layout.blocks / 8) + 4 * chunksOf(payloadAt, layout);
  }

  /** Call it before a run of blocks, which is stored in [start, end) of the ZFile, is read. */
  begin(start: number, end: number): void {
    this.#first = Math.floor((this.#payloadAt + start) / CHUNK_BYTES);
    this.#end = Math.ceil((this.#payloadAt + end) / CHUNK_BYTES);
    this.#isVersioned = true;
    for (let chunk = this.#first; chunk < this.#end; chunk++) {
      const version = this.#versionOf(chunk);
      if (version === 0) this.#isVersioned = false;
      if (version === this.#versions[chunk]) continue;
      this.#versions[chunk] = version;
      this.#clear(chunk);
    }
  }

  /**
   * Proves the blocks of the run that are not proved.
   *
   * @param target - Holds them decoded, `bytes` of them from `at` on.
   * @returns The number of the first wrong block, counted from `block`; -1 if all are right; {@link NODE_NOT_LOCAL}.
   * @throws {ObdError} `Corrupt` for a node of the tree.
   */
  finish(block: number, count: number, target: Uint8Array, at: number, bytes: number): number {
    const keeps = this.#isVersioned && this.#isUnchanged();
    let i = keeps ? this.#firstUnproved(block, 0, count) : 0;
    while (i < count) {
      const first = i;
      if (keeps) while (i < count && !this.#has(block + i)) i++;
      else i = count;
      const from = first * this.#blockBytes;
      const length = Math.min(i * this.#blockBytes, bytes) - from;
      const offset = (block + first) * this.#blockBytes;
      const wrong = this.tree.firstWrong(target, at + from, offset, length);
      if (wrong === NODE_NOT_LOCAL) return NODE_NOT_LOCAL;
      if (wrong !== -1) return first + Math.floor(wrong / this.#blockBytes);
      if (!keeps) return -1;
      for (let proved = block + first; proved < block + i; proved++) this.#add(proved);
      i = this.#firstUnproved(block, i, count);
    }
    return -1;
  }

  /** Whether a read of [block, end) needs no node of the tree. */
  areProved(block: number, end: number): boolean {
    this.begin(this.#table.startOf(block), this.#table.endOf(end - 1));
    return this.#isVersioned && this.#firstUnproved(block, 0, end - block) === end - block;
  }

  #firstUnproved(block: number, from: number, count: number): number {
    let i = from;
    while (i < count && this.#has(block + i)) {
      // Eight at once, if their byte is full.
      const isFull = ((block + i) & 7) === 0 && this.#bits[(block + i) >>> 3] === 0xff;
      i += isFull ? 8 : 1;
    }
    return Math.min(i, count);
  }

  #isUnchanged(): boolean {
    for (let chunk = this.#first; chunk < this.#end; chunk++) {
      if (this.#versionOf(chunk) !== this.#versions[chunk]) return false;
    }
    return true;
  }

  #clear(chunk: number): void {
    const start = chunk * CHUNK_BYTES - this.#payloadAt;
    const end = start + CHUNK_BYTES;
    const blocks = this.#table.blocks;
    for (let block = this.#table.blockAt(start); block < blocks; block++) {
      if (this.#table.startOf(block) >= end) return;
      this.#bits[block >>> 3]! &= ~(1 << (block & 7));
    }
  }

  #has(block: number): boolean {
    return ((this.#bits[block >>> 3]! >>> (block & 7)) & 1) === 1;
  }

  #add(block: number): void {
    this.#bits[block >>> 3]! |= 1 << (block & 7);
  }

  #versionOf(chunk: number): number {
    return this.#blob.versionOf?.(chunk) ?? 1;
  }
}

/** How many chunks hold the blocks, and what is before them. */
function chunksOf(payloadAt: number, { indexOffset }: ZFileLayout): number {
  return Math.ceil((payloadAt + Math.max(indexOffset, HEADER_BYTES)) / CHUNK_BYTES);
}

/**
 * Where each block of a ZFile is stored, from the index of stored lengths behind the blocks.
 *
 * Blocks are grouped by 2^15. A group keeps the 2^15 + 1 boundaries of its blocks as 32-bit offsets
 * from the group's own start, which fit since no stored block is longer than 64 KiB + 516 bytes.
 * That is 4 bytes of memory per block, and a look-up without a search.
 *
 * Checked while loading, so that readers can rely on it: the index's CRC where the file has one, that
 * every length is possible, that the blocks end where the index starts, and its hash where a hash tree proves the layer.
 * The index is read one group at a time, into one buffer whose pages the system provides as they are written: memory
 * grows only as bytes really arrive.
 */
import { createHash } from 'node:crypto';
import { corrupt } from '../io/format-error.js';
import { freeMemory } from '../io/free-memory.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { blockBoundaries, CHECKSUM_BYTES, EXPANSION_BYTES_MAX } from './block-codec.js';
import { rawCrc32c } from './raw-crc32c.js';
import { HEADER_BYTES, INDEX_ENTRY_BYTES, type ZFileLayout } from './zfile-header.js';

const GROUP_SHIFT = 15;
export const GROUP_BLOCKS = 1 << GROUP_SHIFT;

export class BlockTable {
  readonly blocks: number;
  readonly #starts: Float64Array;
  /** Boundaries of all groups, one after the other. */
  readonly #memory: ArrayBuffer;
  readonly #boundaries: Uint32Array[] = [];

  private constructor(blocks: number) {
    this.blocks = blocks;
    this.#starts = new Float64Array(groupsOf(blocks));
    this.#memory = new ArrayBuffer(boundaryBytes(blocks));
  }

  /** Memory of a table of so many blocks. */
  static memoryBytes(blocks: number): number {
    return boundaryBytes(blocks) + groupsOf(blocks) * Float64Array.BYTES_PER_ELEMENT;
  }

  /**
   * @param indexHash - SHA-256 of the index, if that is known.
   * @throws {ObdError} `Corrupt`, and read errors of `source`.
   */
  static async load(
    source: RandomAccessFile,
    layout: ZFileLayout,
    indexHash?: Buffer,
  ): Promise<BlockTable> {
    const { blocks } = layout;
    const table = new BlockTable(blocks);
    try {
      await table.#load(source, layout, indexHash);
      return table;
    } catch (error) {
      table.free();
      throw error;
    }
  }

  async #load(
    source: RandomAccessFile,
    layout: ZFileLayout,
    indexHash: Buffer | undefined,
  ): Promise<void> {
    const { blocks, indexOffset, indexCrc } = layout;
    const hash = createHash('sha256');
    const piece = Buffer.alloc(Math.min(blocks, GROUP_BLOCKS) * INDEX_ENTRY_BYTES);
    let crc = 0;
    let end = HEADER_BYTES;
    for (let first = 0; first < blocks; first += GROUP_BLOCKS) {
      const bytes = piece.subarray(0, Math.min(blocks - first, GROUP_BLOCKS) * INDEX_ENTRY_BYTES);
      const at = indexOffset + first * INDEX_ENTRY_BYTES;
      await readFully(source, bytes, at);
      crc = rawCrc32c(bytes, crc);
      if (indexHash !== undefined) hash.update(bytes);
      end = this.#addGroup(bytes, end, layout, (i) =>
        corrupt(
          source,
          at + i * INDEX_ENTRY_BYTES,
          `impossible stored length of block ${first + i}`,
        ),
      );
    }
    if (indexCrc !== undefined && crc !== indexCrc) {
      throw corrupt(source, indexOffset, 'the index fails its CRC');
    }
    if (indexHash !== undefined && !hash.digest().equals(indexHash)) {
      throw corrupt(source, indexOffset, 'the index is another one than its hash tree proves');
    }
    if (end !== indexOffset) {
      throw corrupt(source, indexOffset, `blocks end at ${end}, and the index starts elsewhere`);
    }
  }

  #addGroup(
    lengths: Buffer,
    start: number,
    { blockBytes, checked }: ZFileLayout,
    impossible: (i: number) => Error,
  ): number {
    const trailer = checked ? CHECKSUM_BYTES : 0;
    const longest = blockBytes + EXPANSION_BYTES_MAX + trailer;
    const count = lengths.length / INDEX_ENTRY_BYTES;
    const group = this.#boundaries.length;
    const at = group * (GROUP_BLOCKS + 1) * INDEX_ENTRY_BYTES;
    const boundaries = new Uint32Array(this.#memory, at, count + 1);
    const bad = blockBoundaries(lengths, boundaries, trailer + 1, longest);
    if (bad !== -1) throw impossible(bad);
    this.#starts[group] = start;
    this.#boundaries.push(boundaries);
    return start + boundaries[count]!;
  }

  /** The boundaries of the blocks in `block`'s group; block b is entry b % GROUP_BLOCKS of them. */
  boundariesOf(block: number): Uint32Array {
    return this.#boundaries[block >>> GROUP_SHIFT]!;
  }

  /** The byte of the file that block `block` starts at. */
  startOf(block: number): number {
    const group = block >>> GROUP_SHIFT;
    return this.#starts[group]! + this.#boundaries[group]![block & (GROUP_BLOCKS - 1)]!;
  }

  /** The byte of the file that follows block `block`. */
  endOf(block: number): number {
    const group = block >>> GROUP_SHIFT;
    return this.#starts[group]! + this.#boundaries[group]![(block & (GROUP_BLOCKS - 1)) + 1]!;
  }

  /** The first block that ends behind byte `offset` of the file; `blocks` if there is none. */
  blockAt(offset: number): number {
    let low = 0;
    let high = this.blocks;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.endOf(middle) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Frees the memory. Looking a block up afterwards is a bug. Idempotent. */
  free(): void {
    freeMemory(this.#memory);
  }
}

function groupsOf(blocks: number): number {
  return Math.ceil(blocks / GROUP_BLOCKS);
}

/** Each group has one boundary more than blocks. */
function boundaryBytes(blocks: number): number {
  return (blocks + groupsOf(blocks)) * INDEX_ENTRY_BYTES;
}

/**
 * Decoded blocks that were needed in part and may be needed again: the one cache of decompressed
 * bytes that all ZFiles of a thread share. Blocks needed whole never come here; they are decoded
 * straight into the reader's buffer, and the kernel's page cache keeps them.
 *
 * One buffer, cut in slabs of 64 KiB. A slab holds what is known of one aligned 64 KiB of one file,
 * with a bit for each of its blocks (of 4 to 64 KiB). Slabs form sets of WAYS; a file's 64 KiB can
 * only be in the set its hash names, where the least recently used slab makes room for it.
 *
 * Cost: a look-up compares at most WAYS numbers and allocates nothing.
 */
import { BLOCK_BYTES_MAX } from './block-codec.js';

const SLAB_BYTES = BLOCK_BYTES_MAX;
const WAYS = 8;
/** One set. Less would evict a block while its neighbour is decoded. */
export const BUDGET_BYTES_MIN = SLAB_BYTES * WAYS;

export class DecodedBlocks {
  /** The buffer: find() and reserve() return positions in it. */
  readonly bytes: Buffer;
  readonly #files: Float64Array;
  readonly #groups: Float64Array;
  /** Bit i: block i of the slab is decoded. */
  readonly #known: Uint16Array;
  readonly #usedAt: Float64Array;
  readonly #setMask: number;
  #clock = 0;
  #lastFile = 0;

  /** @param budgetBytes - Rounded down to a power of two; at least {@link BUDGET_BYTES_MIN}. */
  constructor(budgetBytes: number) {
    if (!(budgetBytes >= BUDGET_BYTES_MIN && budgetBytes <= 2 ** 32)) {
      throw new RangeError(`a budget of ${budgetBytes} bytes; at least ${BUDGET_BYTES_MIN}`);
    }
    const sets = 2 ** Math.floor(Math.log2(budgetBytes / BUDGET_BYTES_MIN));
    const slabs = sets * WAYS;
    this.bytes = Buffer.alloc(slabs * SLAB_BYTES);
    this.#files = new Float64Array(slabs);
    this.#groups = new Float64Array(slabs);
    this.#known = new Uint16Array(slabs);
    this.#usedAt = new Float64Array(slabs);
    this.#setMask = sets - 1;
  }

  /** A name for a file, never used before. Slabs of a closed file are just never asked for again. */
  nameFile(): number {
    return ++this.#lastFile;
  }

  /** Where the decoded block starts in {@link bytes}, or -1. Valid until the next reserve(). */
  find(file: number, block: number, blockBytes: number): number {
    const blocksPerSlab = SLAB_BYTES / blockBytes;
    const group = Math.floor(block / blocksPerSlab);
    const slab = this.#slabOf(file, group);
    const i = block - group * blocksPerSlab;
    if (slab === -1 || ((this.#known[slab]! >>> i) & 1) === 0) return -1;
    this.#usedAt[slab] = ++this.#clock;
    return slab * SLAB_BYTES + i * blockBytes;
  }

  /** Where to decode the block to. find() does not return it until keep() reports success. */
  reserve(file: number, block: number, blockBytes: number): number {
    const blocksPerSlab = SLAB_BYTES / blockBytes;
    const group = Math.floor(block / blocksPerSlab);
    let slab = this.#slabOf(file, group);
    if (slab === -1) {
      slab = this.#leastRecent(this.#firstOfSet(file, group));
      this.#files[slab] = file;
      this.#groups[slab] = group;
      this.#known[slab] = 0;
    }
    this.#usedAt[slab] = ++this.#clock;
    return slab * SLAB_BYTES + (block - group * blocksPerSlab) * blockBytes;
  }

  /** @param position - What reserve() returned for a block of `blockBytes`. */
  keep(position: number, blockBytes: number): void {
    const slab = Math.floor(position / SLAB_BYTES);
    this.#known[slab]! |= 1 << ((position - slab * SLAB_BYTES) / blockBytes);
  }

  #firstOfSet(file: number, group: number): number {
    const hash = Math.imul(group, 0x9e3779b1) ^ Math.imul(file, 0x85ebca6b);
    return (((hash >>> 16) ^ hash) & this.#setMask) * WAYS;
  }

  #slabOf(file: number, group: number): number {
    const first = this.#firstOfSet(file, group);
    for (let slab = first; slab < first + WAYS; slab++) {
      if (this.#groups[slab] === group && this.#files[slab] === file) return slab;
    }
    return -1;
  }

  #leastRecent(first: number): number {
    let oldest = first;
    for (let slab = first + 1; slab < first + WAYS; slab++) {
      if (this.#usedAt[slab]! < this.#usedAt[oldest]!) oldest = slab;
    }
    return oldest;
  }
}

/**
 * The pages of a hot blob, as this host keeps them: a cached file with the index, filled up to whole chunks, and behind it
 * the pages in the order of their slots. Every page in it has been proved; each read checks its CRC.
 */
import { CHUNK_BYTES, type RandomAccessFile } from '../io/random-access-file.js';
import { LEAF_BYTES } from '../zfile/hash-tree-layout.js';
import { firstWrongCrc } from '../zfile/leaf-hashes.js';
import type { HotIndex } from './hot-index.js';
import type { HotProgress } from './hot-progress.js';

export const PAGE_BYTES = LEAF_BYTES;
/** 1 MiB. Fewer say little of a start. */
export const KNOWN_PAGES_MIN = 256;

/** A cached file. isStored() says whether all of a range is on the disk, if perhaps not in memory. */
export interface HotPagesFile extends RandomAccessFile {
  isStored(offset: number, length: number): boolean;
}

/** The byte of the cached file where the pages begin. */
export function pagesAt(indexBytes: number): number {
  return Math.ceil(indexBytes / CHUNK_BYTES) * CHUNK_BYTES;
}

/** The runs of one layer, sorted by leaf. */
export interface HotRuns {
  readonly leaves: Uint32Array;
  readonly counts: Uint32Array;
  readonly slots: Uint32Array;
}

/** The last run that begins at or before the leaf; -1 if none does. */
export function runAt({ leaves }: HotRuns, leaf: number): number {
  let low = 0;
  let high = leaves.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (leaves[middle]! <= leaf) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

export class HotPages {
  readonly progress: HotProgress;
  readonly file: HotPagesFile;
  readonly #index: HotIndex;
  readonly #pagesAt: number;
  readonly #page = Buffer.alloc(PAGE_BYTES);

  /** @param file - The last of the files above it closes it: see close(). */
  constructor(file: HotPagesFile, index: HotIndex, indexBytes: number, progress: HotProgress) {
    this.file = file;
    this.progress = progress;
    this.#index = index;
    this.#pagesAt = pagesAt(indexBytes);
  }

  /** How many pages there are. */
  get pages(): number {
    return this.#index.pages;
  }

  /** The runs of a layer, as the index counts them; undefined for a layer without any. */
  runsOf(digest: string): HotRuns | undefined {
    const { layers, runs } = this.#index;
    const layer = layers.findIndex((each) => each.digest === digest);
    const found: { leaf: number; count: number; slot: number }[] = [];
    let slot = 0;
    for (let i = 0; i < runs.length; i += 3) {
      const count = runs[i + 2]!;
      if (runs[i] === layer) found.push({ leaf: runs[i + 1]!, count, slot });
      slot += count;
    }
    if (found.length === 0) return undefined;
    found.sort((a, b) => a.leaf - b.leaf);
    return {
      leaves: Uint32Array.from(found, ({ leaf }) => leaf),
      counts: Uint32Array.from(found, ({ count }) => count),
      slots: Uint32Array.from(found, ({ slot }) => slot),
    };
  }

  /** Whether the page is on the disk. */
  has(slot: number): boolean {
    return this.file.isStored(this.#pagesAt + slot * PAGE_BYTES, PAGE_BYTES);
  }

  /**
   * Fills `target` from byte `skip` of page `slot` on, through as many pages as that takes.
   *
   * @returns False if they are not in memory, or fail their CRCs; the pages that failed are dropped.
   */
  tryRead(target: Uint8Array, slot: number, skip: number): boolean {
    for (let done = 0; done < target.length; ) {
      const at = slot * PAGE_BYTES + skip + done;
      const page = Math.floor(at / PAGE_BYTES);
      const from = at - page * PAGE_BYTES;
      const left = target.length - done;
      const isWhole = from === 0 && left >= PAGE_BYTES;
      const bytes = isWhole ? left - (left % PAGE_BYTES) : Math.min(left, PAGE_BYTES - from);
      const into = isWhole ? target.subarray(done, done + bytes) : this.#page;
      if (!this.#readWhole(into, page)) return false;
      if (!isWhole) target.set(this.#page.subarray(from, from + bytes), done);
      done += bytes;
    }
    const first = slot + Math.floor(skip / PAGE_BYTES);
    this.progress.use(first, slot + Math.ceil((skip + target.length) / PAGE_BYTES));
    return true;
  }

  #readWhole(target: Uint8Array, slot: number): boolean {
    const offset = this.#pagesAt + slot * PAGE_BYTES;
    if (!this.file.tryRead(target, offset)) return false;
    const wrong = firstWrongCrc(target, 0, target.length, this.#index.crcs, slot);
    if (wrong === -1) return true;
    this.file.invalidate(offset + wrong * PAGE_BYTES, PAGE_BYTES);
    return false;
  }

  /** Brings pages that are on the disk into memory. */
  async load(slot: number, pages: number): Promise<void> {
    await this.file.load(this.#pagesAt + slot * PAGE_BYTES, pages * PAGE_BYTES);
  }
}

/**
 * The order in which a layer's blocks go into its blob. The index maps any order to the disk, which stays the same.
 *
 *   1. metadata of the file system: everything that is not content of a file
 *   2. small files, directory by directory, each in the order of the archive
 *   3. large files, in the order of the archive
 *
 * A container that starts reads much of the metadata first, and then often many small files of one directory. A lazy
 * reader gets each group in one request, which the large files between them on the disk would spread over the blob.
 *
 * Memory: 12 bytes per run of blocks. Files of one directory that follow each other on the disk are one run.
 */
import type { BlockRun } from '../ext4/block-allocator.js';
import type { Extent } from '../ext4/extent-tree.js';

/**
 * Files of at most 128 KiB are small. For a start of python with flask this limit needs the fewest requests of 512 KiB or
 * 1 MiB, of limits from 16 KiB to 1 MiB; docs/adr/0011 has the figures.
 */
const SMALL_BLOCKS_MAX = 32;
/**
 * A layer with more runs of small files keeps them in the order of the archive: each run takes a record of the layer's
 * index, of which a reader takes a million.
 */
const SMALL_RUNS_MAX = 200_000;

export class ContentOrder {
  readonly #small = new Runs();
  readonly #large = new Runs();
  /** A directory's place in the order, by its inode. */
  readonly #places = new Map<number, number>();

  /**
   * Adds a file of this layer.
   *
   * @param directory - Inode of the directory that the archive has the file in.
   */
  add(directory: number, extents: readonly Extent[]): void {
    const blocks = extents.reduce((sum, { count }) => sum + count, 0);
    if (blocks > SMALL_BLOCKS_MAX) {
      for (const { physical, count } of extents) this.#large.add(0, physical, count);
      return;
    }
    if (blocks === 0) return;
    let place = this.#places.get(directory);
    if (place === undefined) {
      place = this.#places.size;
      this.#places.set(directory, place);
    }
    for (const { physical, count } of extents) this.#small.add(place, physical, count);
  }

  /** The blocks that are not content of an added file, ascending. @param blocks - Of the disk. */
  *metadata(blocks: number): Generator<BlockRun> {
    const small = this.#small.ascending();
    const large = this.#large.ascending();
    let end = 0;
    for (let s = small.next(), l = large.next(); !s.done || !l.done; ) {
      let run: BlockRun;
      if (l.done || (!s.done && s.value.start < l.value.start)) {
        run = s.value as BlockRun;
        s = small.next();
      } else {
        run = l.value;
        l = large.next();
      }
      if (run.start > end) yield { start: end, count: run.start - end };
      end = Math.max(end, run.start + run.count);
    }
    if (end < blocks) yield { start: end, count: blocks - end };
  }

  /** The contents of the added files. A block may be in two runs if its first file was removed again. */
  *contents(): Generator<BlockRun> {
    if (this.#small.count > SMALL_RUNS_MAX) yield* this.#small.ascending();
    else yield* this.#small.byPlace();
    yield* this.#large.ascending();
  }
}

/** A list of runs with their places, in columns. */
class Runs {
  count = 0;
  #columns = new Uint32Array(3 * 256);

  add(place: number, start: number, count: number): void {
    const columns = this.#columns;
    const last = (this.count - 1) * 3;
    if (last >= 0 && columns[last] === place && columns[last + 1]! + columns[last + 2]! === start) {
      columns[last + 2]! += count;
      return;
    }
    const at = this.count * 3;
    if (at === columns.length) {
      this.#columns = new Uint32Array(columns.length * 2);
      this.#columns.set(columns);
    }
    this.#columns.set([place, start, count], at);
    this.count++;
  }

  ascending(): Generator<BlockRun> {
    return this.#sorted(1);
  }

  /** Runs of the same place keep their order. */
  byPlace(): Generator<BlockRun> {
    return this.#sorted(0);
  }

  *#sorted(column: 0 | 1): Generator<BlockRun> {
    const columns = this.#columns;
    const order = Uint32Array.from({ length: this.count }, (_, i) => i * 3);
    order.sort((a, b) => columns[a + column]! - columns[b + column]! || a - b);
    for (const at of order) yield { start: columns[at + 1]!, count: columns[at + 2]! };
  }
}

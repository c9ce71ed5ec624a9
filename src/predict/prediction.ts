/**
 * The result of the predictor, and the collection of the files that its rules find.
 *
 * Tier 1 is certain and first, tier 2 likely, tier 3 worth it only on an idle link. Within a tier the order is that of the
 * rules' finds. A byte is in the first tier that names it, and once.
 */
import type { ImageFile } from './image-files.js';

/** The same granularity as the page cache of the kernel that mounts the image. */
const PAGE_BYTES = 4096;

export type Tier = 1 | 2 | 3;

/** Bytes [start, end) of a file. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

export interface PredictedFile {
  /** Without symlinks; of a file with several names, the first that was found. */
  readonly path: string;
  /** Ascending, not overlapping; whole pages, or up to the end of the file. */
  readonly ranges: readonly ByteRange[];
  readonly tier: Tier;
  /** Name of the rule. */
  readonly rule: string;
  readonly reason: string;
}

export interface PredictionLimits {
  /** Sum of all ranges. */
  readonly bytesMax: number;
  readonly fileBytesMax: number;
  /** Distinct files, empty ones included. */
  readonly filesMax: number;
}

interface Find {
  readonly file: ImageFile;
  readonly ranges: readonly ByteRange[];
  readonly tier: Tier;
  readonly rule: string;
  readonly reason: string;
}

/** Finds kept until the end, of all tiers. */
const FINDS_MAX = 10_000;

export class FoundFiles {
  readonly #finds: Find[] = [];
  readonly #known = new Set<string>();

  get isFull(): boolean {
    return this.#finds.length >= FINDS_MAX;
  }

  add(find: Find): void {
    const { file, ranges, tier } = find;
    const key = `${file.inode} ${tier} ${ranges.map(({ start, end }) => `${start}-${end}`)}`;
    if (file.kind !== 'file' || this.isFull || this.#known.has(key)) return;
    this.#known.add(key);
    this.#finds.push(find);
  }

  /** Puts the finds in order, cuts them to pages, and drops what is beyond the limits. */
  predicted({ bytesMax, fileBytesMax, filesMax }: PredictionLimits): PredictedFile[] {
    const taken = new Map<number, ByteRange[]>();
    const result: PredictedFile[] = [];
    let bytesLeft = bytesMax;
    // sort() is stable.
    for (const find of this.#finds.toSorted((a, b) => a.tier - b.tier)) {
      const { file, tier, rule, reason } = find;
      const before = taken.get(file.inode);
      if (before === undefined && taken.size >= filesMax) continue;
      const had = before ?? [];
      const fresh = without(joined(find.ranges.map((range) => pages(range, file.sizeBytes))), had);
      const room = Math.min(bytesLeft, fileBytesMax - bytesOf(had));
      const ranges = upTo(fresh, room);
      if (ranges.length === 0 && (before !== undefined || file.sizeBytes > 0)) continue;
      bytesLeft -= bytesOf(ranges);
      taken.set(file.inode, joined([...had, ...ranges]));
      result.push({ path: file.path, ranges, tier, rule, reason });
    }
    return result;
  }
}

/** The sum of the lengths of ranges. */
export function bytesOf(ranges: readonly ByteRange[]): number {
  return ranges.reduce((sum, { start, end }) => sum + end - start, 0);
}

/** Extends a range to whole pages inside a file. */
function pages({ start, end }: ByteRange, sizeBytes: number): ByteRange {
  return {
    start: Math.floor(start / PAGE_BYTES) * PAGE_BYTES,
    end: Math.min(sizeBytes, Math.ceil(end / PAGE_BYTES) * PAGE_BYTES),
  };
}

/** The same bytes as ascending ranges that do not touch. */
function joined(ranges: readonly ByteRange[]): ByteRange[] {
  const result: ByteRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    if (range.end <= range.start) continue;
    if (last === undefined || range.start > last.end) result.push(range);
    else result[result.length - 1] = { start: last.start, end: Math.max(last.end, range.end) };
  }
  return result;
}

/** The bytes of `ranges` that are not in `others`; both as joined() returns them. */
function without(ranges: readonly ByteRange[], others: readonly ByteRange[]): ByteRange[] {
  return ranges.flatMap(({ start, end }) => {
    const left: ByteRange[] = [];
    let from = start;
    for (const other of others) {
      if (other.end <= from || other.start >= end) continue;
      if (other.start > from) left.push({ start: from, end: other.start });
      from = Math.max(from, other.end);
    }
    if (from < end) left.push({ start: from, end });
    return left;
  });
}

/** The first `room` bytes of `ranges`, in whole pages. */
function upTo(ranges: readonly ByteRange[], room: number): ByteRange[] {
  let left = room;
  return ranges.flatMap(({ start, end }) => {
    const length = end - start <= left ? end - start : Math.floor(left / PAGE_BYTES) * PAGE_BYTES;
    left -= Math.max(0, length);
    return length > 0 ? [{ start, end: start + length }] : [];
  });
}

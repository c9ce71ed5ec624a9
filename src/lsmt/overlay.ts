/**
 * Puts lists of segments on top of each other: what an upper one says hides what lies below it, and
 * its gaps let that through.
 *
 * overlay() is linear in its two lists. It is associative, so a stack of N is folded in halves, which
 * makes O(S log N) for S segments in all, where bottom to top would make O(S N).
 */
import { type Segments, SegmentsBuilder, ZEROES } from './segments.js';

/**
 * One list for a whole stack.
 * @param tables - Bottom first; at least one.
 * @throws {ObdError} `Unsupported` where the result has more than SEGMENTS_MAX.
 */
export function overlayAll(tables: readonly Segments[]): Segments {
  if (tables.length === 0) return new SegmentsBuilder(0).finish();
  if (tables.length === 1) return tables[0]!;
  const middle = tables.length >>> 1;
  return overlay(overlayAll(tables.slice(middle)), overlayAll(tables.slice(0, middle)));
}

/** `upper` over `lower`. */
function overlay(upper: Segments, lower: Segments): Segments {
  if (upper.count === 0) return lower;
  if (lower.count === 0) return upper;
  const merged = new SegmentsBuilder(upper.count + lower.count);
  let next = 0;
  for (let u = 0; u < upper.count; u++) {
    next = addBelow(merged, lower, next, upper.starts[u]!);
    merged.add(upper.starts[u]!, upper.ends[u]!, upper.moffsets[u]!, upper.sources[u]!);
  }
  addBelow(merged, lower, next, Number.POSITIVE_INFINITY);
  return merged.finish();
}

/**
 * Adds what `lower` has between the end of `merged` and sector `limit`.
 * @returns The first segment of `lower` that reaches past `limit`.
 */
function addBelow(merged: SegmentsBuilder, lower: Segments, first: number, limit: number): number {
  const from = merged.end;
  let i = first;
  for (; i < lower.count; i++) {
    const start = Math.max(lower.starts[i]!, from);
    const end = Math.min(lower.ends[i]!, limit);
    if (start < end) {
      const source = lower.sources[i]!;
      const skipped = source === ZEROES ? 0 : start - lower.starts[i]!;
      merged.add(start, end, lower.moffsets[i]! + skipped, source);
    }
    if (lower.ends[i]! > limit) break;
  }
  return i;
}

/**
 * Folds a log of segments, where each hides what earlier ones said of its sectors.
 *
 * Ascending runs of the log are lists already; they are overlaid in pairs of like size as they come,
 * which makes O(n log n) in any order, with O(log n) lists alive.
 */
export class LogReplay {
  readonly #tables: Segments[] = [];
  #run = new SegmentsBuilder(0);

  add(start: number, end: number, moffset: number, source: number): void {
    if (start < this.#run.end) this.#endRun();
    this.#run.add(start, end, moffset, source);
  }

  finish(): Segments {
    this.#endRun();
    return overlayAll(this.#tables);
  }

  #endRun(): void {
    const tables = this.#tables;
    tables.push(this.#run.finish());
    this.#run = new SegmentsBuilder(0);
    while (tables.length > 1 && tables.at(-2)!.count < 2 * tables.at(-1)!.count) {
      const upper = tables.pop()!;
      tables.push(overlay(upper, tables.pop()!));
    }
  }
}

/** Builders and a deliberately naive model for LSMT segments. */
import fc from 'fast-check';
import { type Segments, SegmentsBuilder, ZEROES } from '../../src/lsmt/segments.js';

/** A run of sectors from sector `moffset` of source `source` on, or of zeroes. */
export interface Segment {
  readonly start: number;
  readonly length: number;
  readonly moffset: number;
  readonly source: number;
}

export function segmentsOf(list: readonly Segment[]): Segments {
  const builder = new SegmentsBuilder();
  for (const s of list) builder.add(s.start, s.start + s.length, s.moffset, s.source);
  return builder.finish();
}

/** One entry per sector, later segments over earlier ones. Too simple to be wrong. */
export function expandSegments(what: Segments | readonly Segment[], sectors: number): string[] {
  const disk = new Array<string>(sectors).fill('hole');
  for (const s of 'count' in what ? listOf(what) : what) {
    for (let i = 0; i < s.length; i++) {
      disk[s.start + i] = s.source === ZEROES ? 'zeroes' : `${s.source}:${s.moffset + i}`;
    }
  }
  return disk;
}

export function listOf({ count, starts, ends, moffsets, sources }: Segments): Segment[] {
  return Array.from({ length: count }, (_, i) => ({
    start: starts[i]!,
    length: ends[i]! - starts[i]!,
    moffset: moffsets[i]!,
    source: sources[i]!,
  }));
}

/** Sorted, disjoint lists, where neighbours that touch, and continue each other, are common. */
export function segmentLists(sectors: number): fc.Arbitrary<Segment[]> {
  const piece = fc.record({
    gap: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 64 })),
    length: fc.integer({ min: 1, max: 64 }),
    moffset: fc.oneof(fc.constant(-1), fc.nat(2 ** 31)),
    source: fc.oneof(fc.constant(ZEROES), fc.nat(3)),
  });
  return fc.array(piece, { maxLength: 40 }).map((pieces) => {
    const list: Segment[] = [];
    let next = 0;
    let moffset = 0;
    for (const p of pieces) {
      const start = next + p.gap;
      if (start + p.length > sectors) break;
      if (p.moffset !== -1) moffset = p.moffset;
      list.push({ start, length: p.length, moffset, source: p.source });
      next = start + p.length;
      moffset += p.length;
    }
    return list;
  });
}

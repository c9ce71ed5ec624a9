/**
 * Goal: a stack's list says of every sector what the naive rule says, in as few segments as can be.
 * Method: layers painted on an array of sectors, bottom to top, under fast-check.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { expandSegments, segmentLists, segmentsOf } from '../../test/support/segments.js';
import { LogReplay, overlayAll } from './overlay.js';
import { SegmentLookup } from './segment-lookup.js';
import { SEGMENTS_MAX, type Segments, SegmentsBuilder, ZEROES } from './segments.js';

const SECTORS = 2048;

function assertInvariants({ count, starts, ends, moffsets, sources }: Segments): void {
  for (let i = 0; i < count; i++) {
    assert.ok(starts[i]! < ends[i]!);
    if (i === 0) continue;
    assert.ok(ends[i - 1]! <= starts[i]!);
    const touching = ends[i - 1] === starts[i] && sources[i - 1] === sources[i];
    const follows = moffsets[i - 1]! + ends[i - 1]! - starts[i - 1]! === moffsets[i];
    assert.ok(!touching || !(follows || sources[i] === ZEROES), 'two segments that could be one');
  }
}

test('overlayAll() agrees with painting sector by sector', () => {
  fc.assert(
    fc.property(fc.array(segmentLists(SECTORS), { maxLength: 9 }), (lists) => {
      const merged = overlayAll(lists.map(segmentsOf));
      assertInvariants(merged);
      const painted = expandSegments(lists.flat(), SECTORS);
      assert.deepEqual(expandSegments(merged, SECTORS), painted);
    }),
    { numRuns: 300 },
  );
});

test('LogReplay agrees with painting write by write', () => {
  const write = fc.record({
    start: fc.nat(SECTORS - 64),
    length: fc.integer({ min: 1, max: 64 }),
    moffset: fc.nat(2 ** 31),
    source: fc.constantFrom(0, ZEROES),
  });
  fc.assert(
    fc.property(fc.array(write, { maxLength: 300 }), (writes) => {
      const log = new LogReplay();
      for (const w of writes) log.add(w.start, w.start + w.length, w.moffset, w.source);
      const replayed = log.finish();
      assertInvariants(replayed);
      assert.deepEqual(expandSegments(replayed, SECTORS), expandSegments(writes, SECTORS));
    }),
    { numRuns: 200 },
  );
});

test('SegmentLookup finds the first segment that ends past a sector', () => {
  const far = segmentLists(SECTORS).map((list) =>
    list.map((s) => ({ ...s, start: s.start + (s.start > SECTORS / 2 ? 2 ** 41 : 0) })),
  );
  fc.assert(
    fc.property(fc.oneof(segmentLists(SECTORS), far), (list) => {
      const segments = segmentsOf(list);
      const lookup = new SegmentLookup(segments);
      const ends = Array.from(segments.ends);
      const spots = [
        0,
        2 ** 42,
        ...list.flatMap((s) => [s.start - 1, s.start, s.start + s.length]),
      ];
      for (const sector of spots.filter((spot) => spot >= 0)) {
        const naive = ends.findIndex((end) => end > sector);
        assert.equal(lookup.find(sector), naive === -1 ? segments.count : naive);
      }
    }),
    { numRuns: 300 },
  );
});

test('SegmentsBuilder rejects more than its limit', () => {
  const builder = new SegmentsBuilder();
  assert.throws(
    () => {
      for (let i = 0; i <= SEGMENTS_MAX; i++) builder.add(2 * i, 2 * i + 1, 0, 0);
    },
    { code: 'ERR_UNSUPPORTED' },
  );
});

/** Goal: order, pages and bounds of a prediction. Method: finds of files that exist in name only. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ImageFile } from './image-files.js';
import { bytesOf, FoundFiles, type PredictionLimits, type Tier } from './prediction.js';

const LIMITS: PredictionLimits = { bytesMax: 1 << 30, fileBytesMax: 1 << 30, filesMax: 1000 };

function file(inode: number, sizeBytes: number): ImageFile {
  return { inode, sizeBytes, path: `/f${inode}`, kind: 'file', isExecutable: false };
}

function found(
  ...finds: [file: ImageFile, tier: Tier, ...ranges: [number, number][]][]
): FoundFiles {
  const result = new FoundFiles();
  for (const [each, tier, ...ranges] of finds) {
    const list = ranges.map(([start, end]) => ({ start, end }));
    result.add({ file: each, tier, ranges: list, rule: 'r', reason: 'because' });
  }
  return result;
}

describe('FoundFiles', () => {
  test('orders by tier, then by the order of the finds', () => {
    const all = found(
      [file(1, 10), 2, [0, 10]],
      [file(2, 10), 1, [0, 10]],
      [file(3, 10), 1, [0, 10]],
    );
    assert.deepEqual(
      all.predicted(LIMITS).map(({ path }) => path),
      ['/f2', '/f3', '/f1'],
    );
  });

  test('extends ranges to pages, joins them, and ends with the file', () => {
    const [only] = found([file(1, 10_000), 1, [4100, 4200], [9000, 9001], [8191, 8192]]).predicted(
      LIMITS,
    );
    assert.deepEqual(only?.ranges, [{ start: 4096, end: 10_000 }]);
  });

  test('lists each byte once, in its first tier', () => {
    const one = file(1, 40_960);
    const result = found(
      [one, 2, [0, 40_960]],
      [one, 1, [8192, 12_288]],
      [one, 1, [20_480, 24_576]],
    ).predicted(LIMITS);
    assert.deepEqual(
      result.map(({ tier, ranges }) => [tier, bytesOf(ranges)]),
      [
        [1, 4096],
        [1, 4096],
        [2, 32_768],
      ],
    );
    assert.deepEqual(result[2]?.ranges, [
      { start: 0, end: 8192 },
      { start: 12_288, end: 20_480 },
      { start: 24_576, end: 40_960 },
    ]);
  });

  test('keeps its limits, with the earlier tiers first', () => {
    const all = found([file(1, 1 << 20), 2, [0, 1 << 20]], [file(2, 1 << 20), 1, [0, 1 << 20]]);
    const bounded = all.predicted({ ...LIMITS, bytesMax: (1 << 20) + 5000 });
    assert.deepEqual(
      bounded.map(({ path, ranges }) => [path, bytesOf(ranges)]),
      [
        ['/f2', 1 << 20],
        ['/f1', 4096],
      ],
    );
    const [first] = all.predicted({ ...LIMITS, fileBytesMax: 8192 });
    assert.equal(bytesOf(first!.ranges), 8192);
    assert.equal(all.predicted({ ...LIMITS, filesMax: 1 }).length, 1);
  });

  test('lists an empty file, which is opened all the same', () => {
    assert.deepEqual(found([file(1, 0), 1, [0, 0]]).predicted(LIMITS)[0]?.ranges, []);
  });
});

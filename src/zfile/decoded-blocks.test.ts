/**
 * Goal: find() returns the block that was kept under that name, or none after an eviction.
 * Method: random operations on few sets, against a map of everything ever kept.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BUDGET_BYTES_MIN, DecodedBlocks } from './decoded-blocks.js';

test('find() returns a kept block, or undefined', () => {
  const access = fc.record({
    file: fc.integer({ min: 1, max: 3 }),
    block: fc.oneof(fc.nat(200), fc.integer({ min: 2 ** 33, max: 2 ** 33 + 50 })),
    keep: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(access, { maxLength: 300 }), (accesses) => {
      const blocks = new DecodedBlocks(2 * BUDGET_BYTES_MIN);
      const sizeOf = (file: number) => 4096 * 4 ** (file - 1);
      const kept = new Map<string, number>();
      for (const [i, { file, block, keep }] of accesses.entries()) {
        const size = sizeOf(file);
        const found = blocks.find(file, block, size);
        if (found !== -1) {
          assert.equal(blocks.bytes.readUInt32LE(found), kept.get(`${file}:${block}`));
          continue;
        }
        const position = blocks.reserve(file, block, size);
        blocks.bytes.fill(0xee, position, position + size);
        blocks.bytes.writeUInt32LE(i, position);
        if (!keep) continue;
        blocks.keep(position, size);
        kept.set(`${file}:${block}`, i);
        assert.equal(blocks.find(file, block, size), position, 'kept just now');
      }
    }),
    { numRuns: 200 },
  );
});

test('keeps as much as the budget holds, of one file read in order', () => {
  const blocks = new DecodedBlocks(8 * BUDGET_BYTES_MIN);
  const file = blocks.nameFile();
  const count = blocks.bytes.length / 4096;
  for (let block = 0; block < count; block++) {
    blocks.keep(blocks.reserve(file, block, 4096), 4096);
  }
  let found = 0;
  for (let block = 0; block < count; block++) if (blocks.find(file, block, 4096) !== -1) found++;
  assert.ok(found > count / 2, `${found} of ${count}`);
});

test('refuses a budget too small to work with', () => {
  assert.throws(() => new DecodedBlocks(BUDGET_BYTES_MIN - 1), RangeError);
  assert.throws(() => new DecodedBlocks(Number.NaN), RangeError);
});

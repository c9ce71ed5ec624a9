/**
 * Goal: each page and chunk is collected at its first use, and the limits of a document hold.
 * Method: overlapping runs, and one more than the limits allow.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FirstUses } from './first-uses.js';
import { CHUNKS_MAX, PAGES_MAX } from './load-order.js';

test('keeps the first use of a page, and joins what follows', () => {
  const uses = new FirstUses();
  assert.ok(uses.addPages({ layer: 0, leaf: 10, count: 2, ms: 5, starts: 1 }));
  assert.ok(uses.addPages({ layer: 0, leaf: 8, count: 8, ms: 5, starts: 1 }));
  assert.ok(!uses.addPages({ layer: 0, leaf: 9, count: 3, ms: 6, starts: 1 }));
  assert.ok(uses.addPages({ layer: 0, leaf: 16, count: 1, ms: 5, starts: 1 }));
  assert.ok(uses.addPages({ layer: 1, leaf: 17, count: 1, ms: 5, starts: 1 }));
  assert.deepEqual(
    uses.runs.map(({ layer, leaf, count }) => [layer, leaf, count]),
    [
      [0, 10, 2],
      [0, 8, 2],
      [0, 12, 5],
      [1, 17, 1],
    ],
  );
});

test('has the room of a document', () => {
  const uses = new FirstUses();
  assert.ok(uses.addPages({ layer: 0, leaf: 0, count: PAGES_MAX + 5, ms: 0, starts: 1 }));
  assert.ok(uses.addPages({ layer: 1, leaf: 0, count: 1, ms: 0, starts: 1 }), 'new, without room');
  assert.equal(uses.pageCount, PAGES_MAX);
  assert.ok(!uses.isFull);
  for (let chunk = 0; chunk <= CHUNKS_MAX; chunk++) uses.addChunk(0, chunk);
  assert.equal(uses.chunks.length, 2 * CHUNKS_MAX);
  assert.ok(uses.isFull);
});

/**
 * Goal: a merge puts what most starts read first, drops chance pages, stays within the document's limits, and gives the same
 * result for the same orders.
 * Method: small orders of a few pages, and random ones.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { orderOfPages, pagesIn, recordedOrders } from '../../test/support/load-orders.js';
import {
  CHUNKS_MAX,
  encodeLoadOrder,
  PAGES_MAX,
  parseLoadOrder,
  STARTS_MAX,
} from './load-order.js';
import { mergeOrders } from './merge-orders.js';

const leaves = (order: { runs: Parameters<typeof pagesIn>[0]['runs'] }) =>
  pagesIn(order).map((page) => Number(page.slice(2)));
const chunkNumbers = (chunks: Uint32Array) => [...chunks].filter((_, i) => i % 2 === 1);

describe('mergeOrders()', () => {
  test('puts the pages first that most starts read, then goes by time', () => {
    const merged = mergeOrders(orderOfPages([5, 6, 7, 8]), orderOfPages([9, 8, 6, 1]));
    assert.deepEqual(leaves(merged), [6, 8, 5, 9, 7, 1]);
    assert.equal(merged.starts, 2);
    // The mean of 10 and 20 ms, and of 30 and 10.
    assert.deepEqual(merged.runs.slice(0, 2), [
      { layer: 0, leaf: 6, count: 1, ms: 15, starts: 2 },
      { layer: 0, leaf: 8, count: 1, ms: 20, starts: 2 },
    ]);
  });

  test('drops at the third start what one earlier start read, and keeps what the newest read', () => {
    const two = mergeOrders(orderOfPages([1, 2]), orderOfPages([1, 3]));
    assert.deepEqual(leaves(two), [1, 2, 3]);
    const three = mergeOrders(two, orderOfPages([1, 4]));
    assert.deepEqual(leaves(three), [1, 4]);
    const four = mergeOrders(three, orderOfPages([1, 4]));
    assert.deepEqual(leaves(mergeOrders(four, orderOfPages([1]))), [1, 4]);
  });

  test('drops what no start reads any more, however many starts an order claims', () => {
    const claim = (leaf: number) => ({ layer: 0, leaf, count: 1, ms: 0, starts: STARTS_MAX });
    let order = orderOfPages([], [], { starts: STARTS_MAX, runs: [claim(7), claim(1)] });
    for (let start = 1; start <= 8; start++) {
      assert.ok(leaves(order).includes(7), `after ${start - 1} starts`);
      order = mergeOrders(order, orderOfPages([1]));
    }
    order = mergeOrders(order, orderOfPages([1]));
    assert.deepEqual(leaves(order), [1]);
    assert.ok(order.starts <= 8, `${order.starts} starts`);
  });

  test('keeps what every second start reads', () => {
    let order = orderOfPages([1, 2]);
    for (let start = 1; start <= 40; start++) {
      order = mergeOrders(order, orderOfPages(start % 2 === 0 ? [1, 2] : [1]));
      if (start > 2) assert.ok(leaves(order).includes(2), `after ${start} starts`);
    }
  });

  test('takes an order of less read-ahead as it is', () => {
    const ahead = orderOfPages([1, 2, 3, 4], [], { readAheadBytes: 131_072 });
    const exact = orderOfPages([1], [], { readAheadBytes: 4096 });
    assert.equal(mergeOrders(ahead, exact), exact);
    const merged = mergeOrders(exact, ahead);
    assert.deepEqual(leaves(merged), [1, 2, 3, 4]);
    assert.equal(merged.readAheadBytes, 131_072);
  });

  test('prefers recorded orders to lists, and lists to predictions', () => {
    const recorded = orderOfPages([1]);
    const list = orderOfPages([], [], { kind: 'list', starts: 0 });
    const predicted = orderOfPages([], [], { kind: 'predicted', starts: 0 });
    for (const [better, worse] of [
      [recorded, list],
      [recorded, predicted],
      [list, predicted],
    ] as const) {
      assert.equal(mergeOrders(worse, better), better);
      assert.equal(mergeOrders(better, worse), better);
    }
    const later = { ...predicted };
    assert.equal(mergeOrders(predicted, later), later);
  });

  test('takes the newer order where the layers differ', () => {
    const other = orderOfPages([1], [], { layers: orderOfPages([]).layers.toReversed() });
    assert.equal(mergeOrders(orderOfPages([1]), other), other);
  });

  test('puts chunks first that the newer start read, and lets the others go one day', () => {
    const merged = mergeOrders(orderOfPages([1], [1, 2, 3, 4, 5]), orderOfPages([1], [6, 3, 2]));
    assert.deepEqual(chunkNumbers(merged.chunks), [3, 2, 6, 1, 4, 5]);
    const again = mergeOrders(merged, orderOfPages([1], [6, 3]));
    assert.deepEqual(chunkNumbers(again.chunks), [6, 3, 2, 1]);
  });

  test('stays within the limits of a document', () => {
    const large = (from: number) =>
      orderOfPages([], [], {
        starts: STARTS_MAX,
        runs: [{ layer: 0, leaf: from, count: PAGES_MAX, ms: 0, starts: STARTS_MAX }],
        chunks: Uint32Array.from({ length: 2 * CHUNKS_MAX }, (_, i) => (i % 2) * (from + i)),
      });
    const merged = mergeOrders(large(0), large(PAGES_MAX - 10));
    assert.equal(leaves(merged).length, PAGES_MAX);
    assert.equal(merged.chunks.length, 2 * CHUNKS_MAX);
    assert.equal(merged.starts, STARTS_MAX);
    assert.ok(encodeLoadOrder(merged).length > 0);
  });

  test('keeps all that both orders read, and nothing else than either read', () => {
    fc.assert(
      fc.property(recordedOrders, recordedOrders, (older, newer) => {
        const merged = mergeOrders(older, newer);
        assert.deepEqual(mergeOrders(older, newer), merged);
        assert.deepEqual(parseLoadOrder(encodeLoadOrder(merged), 'merged'), merged);
        const [inOlder, inNewer] = [new Set(pagesIn(older)), new Set(pagesIn(newer))];
        const pages = new Set(pagesIn(merged));
        for (const page of inNewer) assert.ok(pages.has(page), `${page} of the newer`);
        for (const page of pages) assert.ok(inOlder.has(page) || inNewer.has(page), page);
        const counts = merged.runs.map(({ starts }) => starts);
        if (merged !== newer)
          assert.deepEqual(
            counts,
            counts.toSorted((a, b) => b - a),
          );
      }),
    );
  });

  test('doubles the counts of an order of few starts that is merged with itself', () => {
    const few = recordedOrders.filter(({ starts }) => starts <= 4);
    fc.assert(
      fc.property(few, (order) => {
        const merged = mergeOrders(order, order);
        assert.equal(merged.starts, 2 * order.starts);
        assert.deepEqual(pagesIn(merged).sort(), pagesIn(order).sort());
        assert.deepEqual(merged.chunks, order.chunks);
      }),
    );
  });
});

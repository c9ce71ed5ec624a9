/** Load orders for tests. */
import fc from 'fast-check';
import { FirstUses } from '../../src/load-order/first-uses.js';
import type { LoadOrder, OrderLayer, PageRun } from '../../src/load-order/load-order.js';

/** A digest that ends in `n`. */
export function digestOf(n: number): string {
  return `sha256:${n.toString(16).padStart(64, '0')}`;
}

export const TWO_LAYERS: readonly OrderLayer[] = [
  { digest: digestOf(1), root: digestOf(101) },
  { digest: digestOf(2), root: undefined },
];

/** A recorded order of one start that reads single pages of layer 0, 10 ms one after the other, and chunks of layer 1. */
export function orderOfPages(
  leaves: readonly number[],
  chunks: readonly number[] = [],
  about: Partial<LoadOrder> = {},
): LoadOrder {
  return {
    kind: 'recorded',
    starts: 1,
    readAheadBytes: 0,
    layers: TWO_LAYERS,
    runs: leaves.map((leaf, i) => ({ layer: 0, leaf, count: 1, ms: 10 * i, starts: 1 })),
    chunks: Uint32Array.from(chunks.flatMap((chunk) => [1, chunk])),
    ...about,
  };
}

const run = fc.record({
  layer: fc.nat(1),
  leaf: fc.nat(60),
  count: fc.integer({ min: 1, max: 9 }),
  ms: fc.nat(50),
  starts: fc.integer({ min: 1, max: 5 }),
});

/** Recorded orders of the same two layers, of up to 5 starts, whose pages and chunks overlap often. */
export const recordedOrders: fc.Arbitrary<LoadOrder> = fc
  .record({
    runs: fc.array(run, { maxLength: 20 }),
    chunks: fc.array(fc.tuple(fc.nat(1), fc.nat(40)), { maxLength: 30 }),
    starts: fc.integer({ min: 1, max: 5 }),
    readAheadBytes: fc.constantFrom(0, 4096, 131_072),
  })
  .map(({ runs, chunks, starts, readAheadBytes }) => {
    const uses = new FirstUses();
    for (const each of runs) uses.addPages({ ...each, starts: Math.min(starts, each.starts) });
    for (const [layer, chunk] of chunks) uses.addChunk(layer, chunk);
    return {
      kind: 'recorded',
      starts,
      readAheadBytes,
      layers: TWO_LAYERS,
      runs: uses.runs,
      chunks: uses.chunks,
    };
  });

/** Each page as `layer:leaf`, in order. */
export function pagesIn({ runs }: { readonly runs: readonly PageRun[] }): string[] {
  return runs.flatMap(({ layer, leaf, count }) =>
    Array.from({ length: count }, (_, i) => `${layer}:${leaf + i}`),
  );
}

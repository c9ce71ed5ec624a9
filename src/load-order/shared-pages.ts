/** Compares the pages of a start with those that are known of its image. */
import type { PageRun } from './load-order.js';

/** A load order, or what a hot blob holds. */
export interface LayerPages {
  readonly layers: readonly { readonly digest: string }[];
  /** No page twice. */
  readonly runs: Iterable<Pick<PageRun, 'layer' | 'leaf' | 'count'>>;
}

/** How many pages both have. An image may have the same layer twice: its pages count for each. */
export function sharedPages(one: LayerPages, other: LayerPages): number {
  const known = new Map<string, Set<number>>();
  for (const { layer, leaf, count } of other.runs) {
    const { digest } = other.layers[layer]!;
    const pages = known.get(digest) ?? new Set();
    known.set(digest, pages);
    for (let page = leaf; page < leaf + count; page++) pages.add(page);
  }
  let shared = 0;
  for (const { layer, leaf, count } of one.runs) {
    const pages = known.get(one.layers[layer]!.digest);
    for (let page = leaf; page < leaf + count; page++) if (pages?.has(page)) shared++;
  }
  return shared;
}

/** Merges what several starts of one image read into one load order. */
import { FirstUses } from './first-uses.js';
import {
  type LoadOrder,
  type LoadOrderKind,
  PAGES_MAX,
  type PageRun,
  placeIn,
  STARTS_MAX,
} from './load-order.js';

/** From so many starts on, a page that one of them read is taken for chance. */
const CHANCE_STARTS = 3;

/** When more starts would count, the counts of the older ones are scaled down to AGED_STARTS. */
const COUNTED_STARTS_MAX = 8;
const AGED_STARTS = COUNTED_STARTS_MAX / 2;

/** The best first: measured, listed, guessed. */
export const KINDS_BY_RANK: readonly LoadOrderKind[] = ['recorded', 'list', 'predicted'];

/**
 * Merges a newer load order into an older one of the same image. The same two orders give the same result.
 *
 * - A better kind replaces the other one; two that are not recorded never merge, the newer one counts.
 * - An order that was recorded with less read-ahead replaces the older one: it has fewer pages that the kernel guessed.
 * - The pages that most starts read come first, then by the mean of their times.
 * - A page that only one of three or more starts read is dropped, unless that is the newest start. So a new habit of the
 *   image gets a second start to prove itself, and chance pages of earlier starts do not add up.
 * - The older order counts as a few starts, however many it claims: pages that no start reads any more lose half of their count
 *   with every AGED_STARTS starts, and are dropped.
 * - Chunks have no counts. The chunks of the newer start come first; of the others at most as many stay, and those that were
 *   missing for longest go.
 */
export function mergeOrders(older: LoadOrder, newer: LoadOrder): LoadOrder {
  const [olderRank, newerRank] = [older, newer].map(({ kind }) => KINDS_BY_RANK.indexOf(kind));
  if (newerRank! > olderRank!) return older;
  const replaces =
    newer.kind !== 'recorded' ||
    older.kind !== 'recorded' ||
    newer.readAheadBytes < older.readAheadBytes ||
    !isOfSameLayers(older, newer);
  if (replaces) return newer;

  const aged = older.starts + newer.starts > COUNTED_STARTS_MAX ? agedOf(older) : older;
  const starts = Math.min(STARTS_MAX, aged.starts + newer.starts);
  const uses = new FirstUses();
  for (const page of mergedPages(aged, newer, starts)) uses.addPages(page);
  mergeChunks(uses, older.chunks, newer.chunks);
  return {
    kind: 'recorded',
    starts,
    // A later start with less read-ahead is then the more exact one.
    readAheadBytes: Math.max(older.readAheadBytes, newer.readAheadBytes),
    layers: newer.layers,
    runs: uses.runs,
    chunks: uses.chunks,
  };
}

/** The pages of a recorded order as those of one start: its claim of many starts counts no longer. */
export function asOneStart(order: LoadOrder): LoadOrder {
  return { ...order, starts: 1, runs: order.runs.map((run) => ({ ...run, starts: 1 })) };
}

/** The order as one of at most AGED_STARTS. */
function agedOf(order: LoadOrder): LoadOrder {
  if (order.starts <= AGED_STARTS) return order;
  const scale = AGED_STARTS / order.starts;
  const runs = order.runs.map((run) => ({
    ...run,
    starts: Math.max(1, Math.floor(run.starts * scale)),
  }));
  return { ...order, starts: AGED_STARTS, runs };
}

function isOfSameLayers(one: LoadOrder, other: LoadOrder): boolean {
  return (
    one.layers.length === other.layers.length &&
    one.layers.every(({ digest }, i) => digest === other.layers[i]!.digest)
  );
}

function mergedPages(older: LoadOrder, newer: LoadOrder, starts: number): PageRun[] {
  const earlier = new Map(pagesOf(older).map((page) => [placeIn(page.layer, page.leaf), page]));
  const merged = pagesOf(newer).map((page) => {
    const place = placeIn(page.layer, page.leaf);
    const known = earlier.get(place);
    if (known === undefined) return page;
    earlier.delete(place);
    return { ...page, ...together(known, page) };
  });
  for (const page of earlier.values()) {
    // The newest start keeps all of its pages, however many the older order claims.
    if (merged.length >= PAGES_MAX) break;
    if (starts < CHANCE_STARTS || page.starts > 1) merged.push(page);
  }
  return merged.sort(
    (a, b) => b.starts - a.starts || a.ms - b.ms || a.layer - b.layer || a.leaf - b.leaf,
  );
}

/** The count of starts, and the mean of their times. */
function together(known: PageRun, page: PageRun): Pick<PageRun, 'ms' | 'starts'> {
  const starts = known.starts + page.starts;
  const ms = Math.round((known.ms * known.starts + page.ms * page.starts) / starts);
  return { ms, starts: Math.min(STARTS_MAX, starts) };
}

function pagesOf({ runs }: LoadOrder): PageRun[] {
  return runs.flatMap((run) =>
    Array.from({ length: run.count }, (_, i) => ({ ...run, leaf: run.leaf + i, count: 1 })),
  );
}

function mergeChunks(uses: FirstUses, older: Uint32Array, newer: Uint32Array): void {
  const known = new Set<number>();
  for (let i = 0; i < older.length; i += 2) known.add(placeIn(older[i]!, older[i + 1]!));
  const isKnown = (i: number) => known.has(placeIn(newer[i]!, newer[i + 1]!));
  for (const wanted of [true, false]) {
    for (let i = 0; i < newer.length; i += 2) {
      if (isKnown(i) === wanted) uses.addChunk(newer[i]!, newer[i + 1]!);
    }
  }
  const read = new Set<number>();
  for (let i = 0; i < newer.length; i += 2) read.add(placeIn(newer[i]!, newer[i + 1]!));
  let room = newer.length / 2;
  for (let i = 0; i < older.length && room > 0; i += 2) {
    if (read.has(placeIn(older[i]!, older[i + 1]!))) continue;
    uses.addChunk(older[i]!, older[i + 1]!);
    room--;
  }
}

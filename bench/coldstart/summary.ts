/** Medians over the rounds, one summary for each image, link and way. */
import type { AdviceUse } from './advice-use.js';
import type { Measured } from './cell.js';
import type { CellResult } from './plan.js';

export interface Summary {
  readonly image: string;
  readonly link: string;
  readonly way: string;
  readonly runs: number;
  readonly median: Measured;
  readonly readyMin: number;
  readonly readyMax: number;
}

/** Cells without a good run are left out. */
export function summaries(results: readonly CellResult[]): Summary[] {
  const cells = grouped(results, ({ image, link, way }) => `${image} ${link} ${way}`);
  return [...cells.values()].flatMap((cell) => {
    const good = cell.flatMap(({ measured }) => measured ?? []);
    if (good.length === 0) return [];
    const { image, link, way } = cell[0]!;
    const readies = good.map(({ ready }) => ready);
    const [readyMin, readyMax] = [Math.min(...readies), Math.max(...readies)];
    return [{ image, link, way, runs: good.length, median: medians(good), readyMin, readyMax }];
  });
}

/** In the order in which the keys come. */
export function grouped<T>(all: readonly T[], keyOf: (each: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const each of all) {
    const key = keyOf(each);
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  return groups;
}

/** The middle one; of an even number the lower of two. */
export function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[(values.length - 1) >> 1] ?? Number.NaN;
}

function medians(runs: readonly Measured[]): Measured {
  const of = (value: (run: Measured) => number): number => medianOf(runs.map(value));
  const ofAdvice = (value: (use: AdviceUse) => number | undefined): number | undefined => {
    const known = runs.flatMap(({ advice }) => (advice && value(advice)) ?? []);
    return known.length === 0 ? undefined : medianOf(known);
  };
  return {
    advice: {
      hotBytes: ofAdvice((use) => use.hotBytes),
      hotGets: ofAdvice((use) => use.hotGets),
      hotAsked: ofAdvice((use) => use.hotAsked),
      orderSeconds: ofAdvice((use) => use.orderSeconds),
      unreadShare: ofAdvice((use) => use.unreadShare),
    },
    pull: of((run) => run.pull),
    firstRequest: of((run) => run.firstRequest),
    firstData: of((run) => run.firstData),
    firstOutput: of((run) => run.firstOutput),
    ready: of((run) => run.ready),
    warm: of((run) => run.warm),
    bytes: of((run) => run.bytes),
    requests: of((run) => run.requests),
    pullChain: of((run) => run.pullChain),
    cpu: {
      daemons: of((run) => run.cpu.daemons),
      containerd: of((run) => run.cpu.containerd),
    },
    ownStart: {
      daemons: of((run) => run.ownStart.daemons),
      containerd: of((run) => run.ownStart.containerd),
    },
    idlePercent: of((run) => run.idlePercent),
    stealPercent: of((run) => run.stealPercent),
  };
}

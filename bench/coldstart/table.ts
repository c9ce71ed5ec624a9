/** The results as text: a row for each image, link and way, with medians over the rounds. */
import { textTable } from '../../src/cli/obdctl/text-table.js';
import type { Measured } from './cell.js';
import type { CellResult, Limit } from './plan.js';

export function resultTable(results: readonly CellResult[], limits: readonly Limit[]): string {
  const titles = [
    ...['image', 'link', 'way', 'n', 'pull', 'request', 'data', 'output', 'ready', 'min', 'max'],
    ...['warm', 'to limit', 'MB', 'requests', 'chain', 'CPU', 'start', 'idle %', 'steal %'],
  ];
  const columns = titles.map((title, i) => ({ title, right: i > 2 }));
  const keys = [...new Set(results.map(({ image, link, way }) => `${link} ${image} ${way}`))];
  const rows = keys.map((key) => {
    const [link, image, way] = key.split(' ');
    const own = results.filter(
      (each) => each.link === link && each.image === image && each.way === way,
    );
    const good = own.flatMap(({ measured }) => measured ?? []);
    if (good.length === 0) return [image!, link!, way!, '0', 'failed'];
    const median = (value: (measured: Measured) => number): number => medianOf(good.map(value));
    const network = limits.find(
      (each) => each.image === image && each.link === link,
    )?.networkSeconds;
    const warm = median((each) => each.warm);
    const readies = good.map((each) => each.ready);
    const toLimit = median((each) => each.ready) / (warm + (network ?? Number.NaN));
    return [
      ...[image!, link!, way!, `${good.length}`],
      ...[median((each) => each.pull), median((each) => each.firstRequest)].map(twoDigits),
      ...[median((each) => each.firstData), median((each) => each.firstOutput)].map(twoDigits),
      ...[median((each) => each.ready), Math.min(...readies), Math.max(...readies)].map(twoDigits),
      ...[warm, toLimit].map(twoDigits),
      (median((each) => each.bytes) / 1e6).toFixed(1),
      ...[median((each) => each.requests), median((each) => each.pullChain)].map(String),
      ...[median((each) => each.cpu.daemons), median((each) => each.ownStart.daemons)].map(
        twoDigits,
      ),
      ...[median((each) => each.idlePercent), median((each) => each.stealPercent)].map((value) =>
        value.toFixed(0),
      ),
    ];
  });
  return textTable(columns, rows);
}

/** The middle one; of an even number the lower of two. */
function medianOf(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[(values.length - 1) >> 1] ?? Number.NaN;
}

const twoDigits = (value: number): string => value.toFixed(2);

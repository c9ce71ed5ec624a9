/** The results as text: a row for each image, link and way. */
import { textTable } from '../../src/cli/obdctl/text-table.js';
import type { Aim } from './aims.js';
import type { Limit } from './plan.js';
import type { Summary } from './summary.js';

export function resultTable(summaries: readonly Summary[], limits: readonly Limit[]): string {
  const titles = [
    ...['image', 'link', 'way', 'n', 'pull', 'request', 'data', 'output', 'ready', 'min', 'max'],
    ...['warm', 'to limit', 'MB', 'requests', 'chain', 'CPU', 'start', 'idle %', 'steal %'],
  ];
  const columns = titles.map((title, i) => ({ title, right: i > 2 }));
  const rows = summaries.map(({ image, link, way, runs, median, readyMin, readyMax }) => {
    const limit = limits.find((each) => each.image === image && each.link === link);
    const toLimit = median.ready / ((limit?.networkSeconds ?? Number.NaN) + median.warm);
    const seconds = [median.pull, median.firstRequest, median.firstData, median.firstOutput];
    return [
      ...[image, link, way, `${runs}`],
      ...[...seconds, median.ready, readyMin, readyMax, median.warm, toLimit].map(twoDigits),
      (median.bytes / 1e6).toFixed(1),
      ...[median.requests, median.pullChain].map(String),
      ...[median.cpu.daemons, median.ownStart.daemons].map(twoDigits),
      ...[median.idlePercent, median.stealPercent].map((value) => value.toFixed(0)),
    ];
  });
  return textTable(columns, rows);
}

export function aimTable(aims: readonly Aim[]): string {
  const titles = ['aim', 'value', 'at most', ''];
  const columns = titles.map((title, i) => ({ title, right: i === 1 || i === 2 }));
  const rows = aims.map(({ name, value, atMost, state }) => [
    name,
    value === undefined ? '' : twoDigits(value),
    twoDigits(atMost),
    state,
  ]);
  return textTable(columns, rows);
}

const twoDigits = (value: number): string => (Number.isNaN(value) ? '' : value.toFixed(2));

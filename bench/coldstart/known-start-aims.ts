/** The numbers to reach by starts whose pages are known: published, predicted, or wrong. */
import type { SetAim } from './aims.js';
import { type JudgedCells, ratio } from './judged-cells.js';

/** Peers that know nothing of the image's starts. */
export const PEERS = ['nydus', 'nydus-batch', 'nydus-all', 'soci', 'stargz'];
/** One way of each peer. */
export const NEEDED_PEERS = ['nydus', 'soci', 'stargz'];
export const FULL_PULLS = ['overlayfs', 'erofs'];
/** Peers that know which files an earlier start has read. */
const KNOWING_PEERS = ['nydus-list', 'soci-list'];
const KNOWABLE = ['python', 'nodejs', 'jvm', 'pandas', 'nginx'];
/** Slower to pull than to start. */
const LARGE = ['nodejs', 'jvm', 'pandas'];

/** Seconds of a start with a hot blob. */
const KNOWN_SECONDS_MAX = [
  ['python', 'slow', 1.5],
  ['python', 'fast', 0.6],
  ['jvm', 'slow', 5],
  ['jvm', 'fast', 4],
] as const;

export function setKnownStartAims(cells: JudgedCells, aim: SetAim): void {
  for (const [image, link] of cells.pairs(KNOWABLE)) {
    const name = `${image}, ${link}`;
    const readyOf = (way: string) => cells.at(image, link, way)?.ready;
    const third = readyOf('obd-third');
    const knowing = cells.fastest(image, link, KNOWING_PEERS);
    predictionAims(cells, aim, image, link);
    aim(`${name}: second node to the limit`, cells.toLimit(image, link, 'obd-second'), 1.5);
    aim(`${name}: third node to the limit`, cells.toLimit(image, link, 'obd-third'), 1.35);
    aim(`${name}: third node to the best peer that knows`, ratio(third, knowing), 0.65);
    for (const [of, at, atMost] of KNOWN_SECONDS_MAX) {
      if (of === image && at === link) aim(`${name}: third node, s`, third, atMost);
    }
    hotBlobAims(cells, aim, image, link);
    const order = cells.toOrderLimit(image, link, 'obd-order');
    aim(`${name}: load order alone to the limit of its bytes`, order, 1.5);
    const listed = ratio(readyOf('obd-order'), readyOf('nydus-list'));
    aim(`${name}: load order alone to nydus with a list`, listed, 1);
    for (const [way, what] of [
      ['obd-wrong', 'hot blob'],
      ['obd-wrong-order', 'load order'],
    ] as const) {
      const pairs = cells.pairedRatio(image, link, way, 'obd-ctr');
      aim(`${name}: with a wrong ${what} to without`, pairs, 1.05);
    }
    if (LARGE.includes(image)) {
      const full = cells.fastest(image, link, FULL_PULLS);
      aim(`${name}: third node to the best full pull`, ratio(third, full), 0.35);
    }
  }
}

function predictionAims(cells: JudgedCells, aim: SetAim, image: string, link: string): void {
  const name = `${image}, ${link}`;
  const predicted = cells.at(image, link, 'obd-predicted');
  const ready = predicted?.ready;
  aim(`${name}: predicted to unknown`, ratio(ready, cells.ours(image, link)?.ready), 0.65);
  const peers = cells.fastest(image, link, PEERS, NEEDED_PEERS);
  aim(`${name}: predicted to the best peer`, ratio(ready, peers), 0.6);
  aim(`${name}: predicted chunks not read, share`, predicted?.advice?.unreadShare, 0.4);
}

function hotBlobAims(cells: JudgedCells, aim: SetAim, image: string, link: string): void {
  const [second, third] = ['obd-second', 'obd-third'].map((way) => cells.at(image, link, way));
  const start = third ?? second;
  const name = `${image}, ${link}`;
  const [ofFirst, ofTwo] = [second, third].map((known) => known && cells.toStream(image, known));
  aim(`${name}: hot blob of the first node to one stream of the pages`, ofFirst, 1.2);
  aim(`${name}: hot blob of two nodes to one stream of the pages`, ofTwo, 1.2);
  aim(`${name}: answers with the hot blob`, start?.advice?.hotGets, 1);
  aim(`${name}: hot blob asked for, s`, start?.advice?.hotAsked, 0.35);
}

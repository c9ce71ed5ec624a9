/** The numbers to reach, and whether this run reached them. An aim whose cell or peer was not run is not measured. */
import { FILE_BYTES, LINKS, type LinkMeasure } from './link.js';
import type { Limit } from './plan.js';
import type { Summary } from './summary.js';

export interface Aim {
  readonly name: string;
  readonly value: number | undefined;
  readonly atMost: number;
  readonly state: 'met' | 'missed' | 'not measured';
}

/** Peers that know nothing of the image's starts. */
const PEERS = ['nydus', 'nydus-batch', 'nydus-all', 'soci', 'stargz'];
const FULL_PULLS = ['overlayfs', 'erofs'];
/** Peers that know which files an earlier start has read. */
const KNOWING_PEERS = ['nydus-list'];
const SPARSE = ['python', 'nodejs', 'jvm', 'pandas'];
/** Half of what it was, in CPU seconds. */
const OWN_START_MAX = 0.68;
const FIRST_DATA_SECONDS_MAX = 0.35;
const PULL_CHAIN_MAX = 5;

export interface AimInput {
  readonly summaries: readonly Summary[];
  readonly links: Readonly<Record<string, LinkMeasure>>;
  readonly limits: readonly Limit[];
  /** Of `node -e 0`. */
  readonly nodeSeconds: number;
}

export function judgedAims({ summaries, links, limits, nodeSeconds }: AimInput): Aim[] {
  const aims: Aim[] = [];
  const aim = (name: string, value: number | undefined, atMost: number): void => {
    const isMeasured = value !== undefined && !Number.isNaN(value);
    const state = !isMeasured ? 'not measured' : value <= atMost ? 'met' : 'missed';
    aims.push({ name, value: isMeasured ? value : undefined, atMost, state });
  };
  const at = (image: string, link: string, way: string) =>
    summaries.find((each) => each.image === image && each.link === link && each.way === way)
      ?.median;
  /** Pulled by containerd, as the peers are, where it can. */
  const ours = (image: string, link: string) =>
    at(image, link, 'obd-ctr') ?? at(image, link, 'obd');
  const fastest = (image: string, link: string, ways: readonly string[]) => {
    const found = ways.flatMap((way) => at(image, link, way)?.ready ?? []);
    return found.length === 0 ? undefined : Math.min(...found);
  };

  const toLimit = (image: string, link: string, way: string) => {
    const measured = at(image, link, way);
    const limit = limits.find((each) => each.image === image && each.link === link);
    return ratio(measured?.ready, limit && limit.networkSeconds + (measured?.warm ?? Number.NaN));
  };
  const knownAims = (image: string, link: string): void => {
    const predicted = at(image, link, 'obd-predicted')?.ready;
    const name = `${image}, ${link}`;
    aim(`${name}: predicted to unknown`, ratio(predicted, ours(image, link)?.ready), 0.65);
    aim(`${name}: predicted to the best peer`, ratio(predicted, fastest(image, link, PEERS)), 0.6);
    aim(`${name}: second node to the limit`, toLimit(image, link, 'obd-second'), 1.5);
    aim(`${name}: third node to the limit`, toLimit(image, link, 'obd-third'), 1.35);
    const third = at(image, link, 'obd-third');
    const known = fastest(image, link, KNOWING_PEERS);
    aim(`${name}: third node to the best peer that knows`, ratio(third?.ready, known), 0.65);
  };

  for (const { name: link } of LINKS) {
    for (const image of SPARSE) {
      const ready = ours(image, link)?.ready;
      aim(`${image}, ${link}: to the best peer`, ratio(ready, fastest(image, link, PEERS)), 0.9);
      aim(
        `${image}, ${link}: to the best full pull`,
        ratio(ready, fastest(image, link, FULL_PULLS)),
        1,
      );
    }
  }
  for (const { name: link } of LINKS) {
    for (const image of SPARSE) knownAims(image, link);
  }
  for (const [link, atMost] of [
    ['slow', 0.9],
    ['fast', 0.7],
  ] as const) {
    const full = at('dense', link, 'overlayfs')?.ready;
    aim(
      `dense, ${link}: to the full pull with overlayfs`,
      ratio(ours('dense', link)?.ready, full),
      atMost,
    );
  }
  const [without, filled] = ['obd', 'obd-fill'].map((way) => at('python', 'slow', way)?.ready);
  aim('python, slow: with the background fill to without', ratio(filled, without), 1.05);
  for (const { name: link } of LINKS) {
    const nydus = at('python', link, 'nydus')?.cpu.daemons;
    aim(
      `python, ${link}: CPU of the daemons to that of nydus`,
      ratio(ours('python', link)?.cpu.daemons, nydus),
      1.5,
    );
  }
  const start = LINKS.flatMap(({ name }) => ours('python', name)?.ownStart.daemons ?? [])[0];
  aim('CPU of the start of our daemons, s', start, OWN_START_MAX);
  for (const { name: link } of LINKS) {
    const [byContainerd, byRpull] = [at('python', link, 'obd-ctr'), at('python', link, 'obd')];
    aim(
      `python, ${link}: first data by containerd, s`,
      byContainerd?.firstData,
      FIRST_DATA_SECONDS_MAX,
    );
    aim(
      `python, ${link}: first data by rpull, s`,
      byRpull?.firstData,
      FIRST_DATA_SECONDS_MAX + nodeSeconds,
    );
  }
  for (const image of ['python', 'layers']) {
    for (const { name: link } of LINKS) {
      aim(
        `${image}, ${link}: requests the pull waits for`,
        ours(image, link)?.pullChain,
        PULL_CHAIN_MAX,
      );
    }
  }
  for (const { name: link } of LINKS) {
    const full = at('model', link, 'overlayfs')?.firstOutput;
    aim(
      `model, ${link}: headers to the full pull`,
      ratio(ours('model', link)?.firstOutput, full),
      0.2,
    );
  }
  const model = ours('model', 'far');
  const rate = links['far']?.megabytesPerSecond;
  const curl = rate === undefined ? undefined : FILE_BYTES / 1e6 / rate;
  const whole = model === undefined ? undefined : model.ready - model.firstOutput;
  aim('model, far: a file of 200 MiB to curl', ratio(whole, curl), 1.2);
  return aims;
}

function ratio(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b;
}

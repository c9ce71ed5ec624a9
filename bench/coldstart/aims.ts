/** The numbers to reach, and whether this run reached them. An aim whose cell or peer was not run is not measured. */
import { JudgedCells, type MeasuredCells, ratio } from './judged-cells.js';
import { FULL_PULLS, NEEDED_PEERS, PEERS, setKnownStartAims } from './known-start-aims.js';
import { FILE_BYTES } from './link.js';

export interface Aim {
  readonly name: string;
  readonly value: number | undefined;
  readonly atMost: number;
  readonly state: 'met' | 'missed' | 'not measured';
}

/** Judges a value, which is undefined where it was not measured. */
export type SetAim = (name: string, value: number | undefined, atMost: number) => void;

const SPARSE = ['python', 'nodejs', 'jvm', 'pandas'];
/** Half of what it was, in CPU seconds. */
const OWN_START_MAX = 0.68;
const FIRST_DATA_SECONDS_MAX = 0.35;
const PULL_CHAIN_MAX = 5;

export interface AimInput extends MeasuredCells {
  /** Of `node -e 0`. */
  readonly nodeSeconds: number;
}

/** Of the images and links of the run. */
export function judgedAims({ nodeSeconds, ...measured }: AimInput): Aim[] {
  const aims: Aim[] = [];
  const aim: SetAim = (name, value, atMost) => {
    const isMeasured = value !== undefined && !Number.isNaN(value);
    const state = !isMeasured ? 'not measured' : value <= atMost ? 'met' : 'missed';
    aims.push({ name, value: isMeasured ? value : undefined, atMost, state });
  };
  const cells = new JudgedCells(measured);
  setUnknownStartAims(cells, aim);
  setKnownStartAims(cells, aim);
  setDenseAims(cells, aim);
  setOwnAims(cells, aim, nodeSeconds);
  setModelAims(cells, aim, measured.links['far']?.megabytesPerSecond);
  return aims;
}

function setUnknownStartAims(cells: JudgedCells, aim: SetAim): void {
  for (const [image, link] of cells.pairs(SPARSE)) {
    const ready = cells.ours(image, link)?.ready;
    const peer = cells.fastest(image, link, PEERS, NEEDED_PEERS);
    const full = cells.fastest(image, link, FULL_PULLS);
    aim(`${image}, ${link}: to the best peer`, ratio(ready, peer), 0.9);
    aim(`${image}, ${link}: to the best full pull`, ratio(ready, full), 1);
  }
}

function setDenseAims(cells: JudgedCells, aim: SetAim): void {
  for (const [image, link] of cells.pairs(['dense'])) {
    const atMost = { slow: 0.9, fast: 0.7 }[link];
    if (atMost === undefined) continue;
    const full = cells.at(image, link, 'overlayfs')?.ready;
    const toFull = ratio(cells.ours(image, link)?.ready, full);
    aim(`dense, ${link}: to the full pull with overlayfs`, toFull, atMost);
  }
}

/** The daemons' cost, and their requests. */
function setOwnAims(cells: JudgedCells, aim: SetAim, nodeSeconds: number): void {
  const python = cells.pairs(['python']);
  const fill = cells.pairedRatio('python', 'slow', 'obd-fill', 'obd');
  aim('python, slow: with the background fill to without', fill, 1.05);
  for (const [image, link] of python) {
    const nydus = cells.at(image, link, 'nydus')?.cpu.daemons;
    const toNydus = ratio(cells.ours(image, link)?.cpu.daemons, nydus);
    aim(`python, ${link}: CPU of the daemons to that of nydus`, toNydus, 1.5);
  }
  const [start] = python.flatMap((at) => cells.ours(...at)?.ownStart.daemons ?? []);
  aim('CPU of the start of our daemons, s', start, OWN_START_MAX);
  for (const [image, link] of python) {
    const [byContainerd, byRpull] = ['obd-ctr', 'obd'].map((way) => cells.at(image, link, way));
    const data = byContainerd?.firstData;
    aim(`python, ${link}: first data by containerd, s`, data, FIRST_DATA_SECONDS_MAX);
    const atMost = FIRST_DATA_SECONDS_MAX + nodeSeconds;
    aim(`python, ${link}: first data by rpull, s`, byRpull?.firstData, atMost);
  }
  for (const [image, link] of cells.pairs(['python', 'layers'])) {
    const chain = cells.ours(image, link)?.pullChain;
    aim(`${image}, ${link}: requests the pull waits for`, chain, PULL_CHAIN_MAX);
  }
}

/** @param rate - Of the far link, in megabytes a second. */
function setModelAims(cells: JudgedCells, aim: SetAim, rate: number | undefined): void {
  for (const [image, link] of cells.pairs(['model'])) {
    const full = cells.at(image, link, 'overlayfs')?.firstOutput;
    const headers = ratio(cells.ours(image, link)?.firstOutput, full);
    aim(`model, ${link}: headers to the full pull`, headers, 0.2);
  }
  const model = cells.ours('model', 'far');
  const curl = rate === undefined ? undefined : FILE_BYTES / 1e6 / rate;
  const whole = model && model.ready - model.firstOutput;
  aim('model, far: a file of 200 MiB to curl', ratio(whole, curl), 1.2);
}

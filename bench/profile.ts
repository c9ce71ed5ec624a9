/**
 * `npm run bench:profile`: the steps of one read and their time. A process under --cpu-prof serves the image of
 * bench:io over the NBD socket, fio reads it, and the samples are summed up by step.
 *
 *     npm run bench:profile [-- --seconds N]
 *
 * Start-up is sampled as well, in a separate row. The profiler sees functions: the call that decodes checks too, and
 * "(program)" is the loop's own reads of the socket. The parts of a decode are measured separately.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { textTable } from '../src/cli/obdctl/text-table.js';
import {
  Algorithms,
  type BlockForm,
  decodeBlocks,
  encodeBlocks,
  encodedBytesMax,
} from '../src/zfile/block-codec.js';
import { PAGE_BYTES, PageContent } from './page-content.js';
import { fio, type Workload } from './programs.js';
import { DISK_BYTES, makeSampleImage } from './sample-image.js';

const WORKLOADS: readonly Workload[] = [
  { name: '4 KiB, depth 1', unit: 'reads/s', rw: 'randread', blockBytes: 4096, depth: 1 },
  { name: '4 KiB, depth 32', unit: 'reads/s', rw: 'randread', blockBytes: 4096, depth: 32 },
  { name: '256 KiB, depth 8', unit: 'MiB/s', rw: 'read', blockBytes: 256 << 10, depth: 8 },
];

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** The first that fits names the step of a frame. */
const STEPS: readonly (readonly [step: string, fits: (name: string, url: string) => boolean])[] = [
  ['idle', (name) => name === '(idle)'],
  ['garbage collection', (name) => name === '(garbage collector)'],
  ['loop and socket read', (name) => name === '(program)'],
  ['socket write', (name, url) => url === '' && /^write/.test(name)],
  ['read of the page cache', (name) => /^readNow/.test(name)],
  ['CRC and lz4', (name) => /^decode(Blocks)?$/.test(name)],
  ['NBD requests and replies', (_, url) => url.includes('/blockdev/')],
  ['look-up in the stack', (_, url) => url.includes('/lsmt/')],
  ['look-up in the ZFile', (_, url) => url.includes('/zfile/')],
  ['local file', (_, url) => url.includes('/src/io/')],
  ["Node's streams", (_, url) => url.startsWith('node:')],
];
const OTHER = 'other';
const START = 'start-up';

/** Microseconds by step; those before the first request are START's. */
function sumUp({ nodes, samples, timeDeltas }: Profile): Map<string, number> {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const serving = samples.findIndex((id) => frames.get(id)?.url.endsWith('/transmission.js'));
  const sums = new Map<string, number>();
  for (const [i, id] of samples.entries()) {
    const { functionName, url } = frames.get(id)!;
    const step =
      i < serving ? START : (STEPS.find(([, fits]) => fits(functionName, url))?.[0] ?? OTHER);
    sums.set(step, (sums.get(step) ?? 0) + timeDeltas[i]!);
  }
  return sums;
}

async function profile(
  workload: Workload,
  layers: readonly string[],
  folder: string,
  seconds: number,
): Promise<{ sums: Map<string, number>; reads: number }> {
  const directory = mkdtempSync(join(folder, 'profile-'));
  const server = join(import.meta.dirname, 'io-server.js');
  const options = ['--cpu-prof', '--cpu-prof-interval=200', `--cpu-prof-dir=${directory}`];
  const child = spawn(process.execPath, [...options, server, 'socket', directory, ...layers], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(createInterface({ input: child.stdout }), 'line');
  const { reads } = await fio(workload, JSON.parse(line as string), seconds);
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
  const written = readdirSync(directory).find((name) => name.endsWith('.cpuprofile'));
  return { sums: sumUp(JSON.parse(readFileSync(join(directory, written!), 'utf8'))), reads };
}

/** Microseconds for a block of each kind of page, on average: checked and decoded, and decoded alone. */
function decodeCost(): { checked: number; unchecked: number } {
  const blocks = 64;
  const plain = Buffer.alloc(blocks * PAGE_BYTES);
  new PageContent(12345).fill(plain);
  const stored = Buffer.alloc(encodedBytesMax(PAGE_BYTES, plain.length));
  const lengths = new Uint32Array(blocks);
  encodeBlocks(Algorithms.lz4, PAGE_BYTES, plain, plain.length, stored, lengths);
  const cost = (checked: boolean): number => {
    const form: BlockForm = { algorithm: Algorithms.lz4, checked, blockBytes: PAGE_BYTES };
    // Without a check the last four bytes would be taken for compressed ones, so each block is its own run.
    const once = (): void => {
      let at = 0;
      for (const length of lengths) {
        const end = at + length - (checked ? 0 : 4);
        const offsets = Uint32Array.of(0, end - at);
        decodeBlocks(form, stored.subarray(at, end), offsets, 0, 1, plain, 0, PAGE_BYTES);
        at += length;
      }
    };
    const rounds = 2000;
    for (let i = 0; i < rounds; i++) once();
    const start = performance.now();
    for (let i = 0; i < rounds; i++) once();
    return ((performance.now() - start) * 1000) / (rounds * blocks);
  };
  return { checked: cost(true), unchecked: cost(false) };
}

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '4' } } });
if (!existsSync(join(import.meta.dirname, 'io-server.js'))) {
  process.stderr.write('bench:profile: build first, a profile of sources names nothing\n');
  process.exit(1);
}
const folder = mkdtempSync('/var/tmp/obd-bench-');
try {
  const { layers } = makeSampleImage(folder, DISK_BYTES);
  const runs: Awaited<ReturnType<typeof profile>>[] = [];
  for (const workload of WORKLOADS) {
    runs.push(await profile(workload, layers, folder, Number(values.seconds)));
  }
  const steps = [...STEPS.map(([step]) => step), OTHER].filter((step) => step !== 'idle');
  const perRead = ({ sums, reads }: (typeof runs)[number], step: string) =>
    ((sums.get(step) ?? 0) / reads).toFixed(2);
  const columns = ['us/read', ...WORKLOADS.map(({ name }) => name)].map((title, i) => ({
    title,
    right: i > 0,
  }));
  const rows = [...steps, 'idle'].map((step) => [step, ...runs.map((run) => perRead(run, step))]);
  process.stdout.write(textTable(columns, rows));
  const { checked, unchecked } = decodeCost();
  process.stdout.write(
    `\na block of 4 KiB: ${checked.toFixed(2)} us checked and decoded, ${unchecked.toFixed(2)} us decoded\n`,
  );
} finally {
  rmSync(folder, { recursive: true });
}

/**
 * Measures cold reads of a local file in three ways (bench/cold-reader.ts): how much the blocks of src/io/resident-file.ts
 * gain over plain reads, and how much they cost if the page cache has everything. The ways take turns within each round, so
 * that other work on the machine falls on all of them; each figure is the median of its rounds.
 *
 *     npm run bench -- cold-reads [--json FILE] [--folder DIR] [--seconds N] [--rounds N]
 *
 * Each cold run begins with an empty page cache for the file. The last workloads limit the disk to DISK_IOPS, for which they
 * need root and the blkio controller of cgroup v1, and measure how long another thread waits for libuv's pool.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { stat } from 'node:fs/promises';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { textTable } from '../src/cli/obdctl/text-table.js';
import type { JobResult, ReaderData, ReaderName, ReadJob } from './cold-reader.js';
import { type Sample, sampleOf } from './sample.js';

const PAGE_BYTES = 4096;
/** As src/io/direct-reads.ts has them. */
const BLOCK_BYTES = 64 * 1024;
const FILE_BYTES = 1 << 30;
/** The part of the file that is read when all of it is in the page cache. */
const WARM_BYTES = 64 << 20;
/** As the daemon's. */
const POOL_THREADS = 16;
/** A network disk of the smaller kind. */
const DISK_IOPS = 400;
const CGROUP = `/sys/fs/cgroup/blkio/obd-bench-${process.pid}`;
const READERS: readonly ReaderName[] = ['direct', 'no aio', 'plain'];

interface Workload {
  readonly name: string;
  readonly bytes: number;
  readonly depth: number;
  readonly offsets: () => Float64Array;
  readonly cache: 'warm' | 'cold' | 'as left';
  readonly slow?: boolean;
  /** The least ratio of "direct" to "plain". */
  readonly aim: number;
}

/** Begins of all blocks, in a seeded random order. */
function shuffledBlocks(bytes: number): Float64Array {
  const blocks = Float64Array.from({ length: bytes / BLOCK_BYTES }, (_, i) => i * BLOCK_BYTES);
  let state = 12345;
  for (let i = blocks.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [blocks[i], blocks[j]] = [blocks[j]!, blocks[i]!];
  }
  return blocks;
}

function repeated(offsets: Float64Array, times: number): Float64Array {
  return Float64Array.from(
    { length: offsets.length * times },
    (_, i) => offsets[i % offsets.length]!,
  );
}

const perPage = (offsets: Float64Array) =>
  Float64Array.from(
    { length: offsets.length * 16 },
    (_, i) => offsets[i >> 4]! + (i % 16) * PAGE_BYTES,
  );

const everywhere = () => shuffledBlocks(FILE_BYTES);
const again = () => everywhere().subarray(0, 256);
const inOrder = (bytes: number) => () =>
  Float64Array.from({ length: FILE_BYTES / bytes }, (_, i) => i * bytes);

const WORKLOADS: readonly Workload[] = [
  {
    name: '4 KiB, in the page cache',
    bytes: PAGE_BYTES,
    depth: 1,
    offsets: () => repeated(perPage(shuffledBlocks(WARM_BYTES)), 100),
    cache: 'warm',
    aim: 0.95,
  },
  {
    name: '4 KiB of each block, depth 1',
    bytes: PAGE_BYTES,
    depth: 1,
    offsets: everywhere,
    cache: 'cold',
    aim: 1,
  },
  {
    name: '4 KiB of each block, depth 32',
    bytes: PAGE_BYTES,
    depth: 32,
    offsets: everywhere,
    cache: 'cold',
    aim: 1,
  },
  {
    name: '256 of them, depth 1',
    bytes: PAGE_BYTES,
    depth: 1,
    offsets: again,
    cache: 'cold',
    aim: 1,
  },
  {
    name: 'the same 256 again',
    bytes: PAGE_BYTES,
    depth: 1,
    offsets: again,
    cache: 'as left',
    aim: 1,
  },
  {
    name: 'blocks in pages, depth 1',
    bytes: PAGE_BYTES,
    depth: 1,
    offsets: () => perPage(everywhere()),
    cache: 'cold',
    aim: 1,
  },
  {
    name: '128 KiB in order, depth 1',
    bytes: 128 << 10,
    depth: 1,
    offsets: inOrder(128 << 10),
    cache: 'cold',
    aim: 1,
  },
  {
    name: '1 MiB in order, depth 8',
    bytes: 1 << 20,
    depth: 8,
    offsets: inOrder(1 << 20),
    cache: 'cold',
    aim: 1,
  },
  {
    name: 'slow disk, 4 KiB, depth 8',
    bytes: PAGE_BYTES,
    depth: 8,
    offsets: everywhere,
    cache: 'cold',
    slow: true,
    aim: 0.95,
  },
  {
    name: 'slow disk, 4 KiB, depth 64',
    bytes: PAGE_BYTES,
    depth: 64,
    offsets: everywhere,
    cache: 'cold',
    slow: true,
    aim: 0.95,
  },
];
/** Limit for the wait of another thread while 64 reads wait for a slow disk. */
const POOL_WAIT_MS_AIM = 10;

interface Run {
  readonly rate: number;
  readonly cpuMicros: number;
  readonly blockedMs: number;
  readonly poolWaitMs: number;
}

interface Figure {
  readonly workload: string;
  readonly reader: ReaderName;
  /** Reads per second. */
  readonly rate: Sample;
  /** CPU time of the whole process and of the kernel for it, for each read. */
  readonly cpuMicros: Sample;
  readonly blockedMs: Sample;
  /** The longest fs.stat() of another thread. */
  readonly poolWaitMs: Sample;
}

function makeFile(path: string): void {
  const piece = Buffer.alloc(1 << 20);
  for (let i = 0; i < piece.length; i += 4) piece.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);
  const fd = openSync(path, 'w');
  for (let at = 0; at < FILE_BYTES; at += piece.length) {
    for (let i = 0; i < piece.length; i += PAGE_BYTES) piece.writeDoubleLE(at + i, i);
    writeSync(fd, piece);
  }
  fsyncSync(fd);
  closeSync(fd);
}

function dropFromPageCache(path: string): void {
  const args = [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'];
  execFileSync('dd', args, { stdio: 'ignore' });
}

function fillPageCache(path: string): void {
  execFileSync('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', `count=${WARM_BYTES >> 20}`], {
    stdio: 'ignore',
  });
}

/** This process reads the file's disk at DISK_IOPS until the returned function is called; undefined where it cannot be. */
function slowDown(path: string): (() => void) | undefined {
  if (!existsSync('/sys/fs/cgroup/blkio/cgroup.procs')) return undefined;
  const { dev } = statSync(path);
  // As glibc's major() and minor() split it, below 2^20.
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  try {
    mkdirSync(CGROUP);
    writeFileSync(join(CGROUP, 'blkio.throttle.read_iops_device'), `${device} ${DISK_IOPS}`);
    writeFileSync(join(CGROUP, 'cgroup.procs'), `${process.pid}`);
  } catch {
    if (existsSync(CGROUP)) rmdirSync(CGROUP);
    return undefined;
  }
  return () => {
    writeFileSync('/sys/fs/cgroup/blkio/cgroup.procs', `${process.pid}`);
    rmdirSync(CGROUP);
  };
}

async function startReader(data: ReaderData): Promise<Worker> {
  const worker = new Worker(new URL('./cold-reader.js', import.meta.url), { workerData: data });
  await once(worker, 'message');
  return worker;
}

/** Uses the pool every few milliseconds until told to stop. @returns The longest wait, in milliseconds. */
async function probePool(path: string, stop: AbortSignal): Promise<number> {
  let longest = 0;
  while (!stop.aborted) {
    const start = performance.now();
    await stat(path);
    longest = Math.max(longest, performance.now() - start);
    await sleep(2);
  }
  return longest;
}

async function runJob(worker: Worker, job: ReadJob): Promise<Run> {
  const stop = new AbortController();
  const probing = probePool('/proc/self', stop.signal);
  const before = process.cpuUsage();
  worker.postMessage(job);
  const [result] = (await once(worker, 'message')) as [JobResult];
  const { user, system } = process.cpuUsage(before);
  stop.abort();
  return {
    rate: result.reads / result.seconds,
    cpuMicros: (user + system) / result.reads,
    blockedMs: result.blockedMs,
    poolWaitMs: await probing,
  };
}

async function measure(
  workers: ReadonlyMap<ReaderName, Worker>,
  path: string,
  seconds: number,
  rounds: number,
  say: (step: string) => void,
): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const [at, workload] of WORKLOADS.entries()) {
    // Measured together with the workload before it.
    if (workload.cache === 'as left') continue;
    const { slow, cache, bytes, depth } = workload;
    const undo = slow ? slowDown(path) : undefined;
    if (slow && undo === undefined) {
      say(`${workload.name}: skipped, no blkio controller of cgroup v1 here`);
      continue;
    }
    say(workload.name);
    const following = WORKLOADS[at + 1]?.cache === 'as left' ? [WORKLOADS[at + 1]!] : [];
    const steps = [workload, ...following];
    const runs = new Map(steps.map((step) => [step, READERS.map((): Run[] => [])]));
    try {
      for (let round = 0; round < rounds; round++) {
        for (const [i, reader] of READERS.entries()) {
          if (cache === 'cold') dropFromPageCache(path);
          else fillPageCache(path);
          for (const step of steps) {
            const job = {
              offsets: step.offsets(),
              bytes,
              depth,
              seconds,
              fresh: step.cache === 'cold',
            };
            runs.get(step)![i]!.push(await runJob(workers.get(reader)!, job));
          }
        }
      }
    } finally {
      undo?.();
    }
    for (const [step, perReader] of runs) {
      for (const [i, reader] of READERS.entries()) {
        const each = (pick: (run: Run) => number) => sampleOf(perReader[i]!.map(pick));
        figures.push({
          workload: step.name,
          reader,
          rate: each((run) => run.rate),
          cpuMicros: each((run) => run.cpuMicros),
          blockedMs: each((run) => run.blockedMs),
          poolWaitMs: each((run) => run.poolWaitMs),
        });
      }
    }
  }
  return figures;
}

function figuresTable(figures: readonly Figure[]): string {
  const titles = ['workload', 'way', 'reads/s', 'CPU us/read', 'thread blocked ms', 'pool wait ms'];
  const columns = titles.map((title, i) => ({ title, right: i > 1 }));
  const rows = figures.map(({ workload, reader, rate, cpuMicros, blockedMs, poolWaitMs }) => [
    workload,
    reader,
    ...[rate, cpuMicros, blockedMs, poolWaitMs].map(({ median }) => median.toString()),
  ]);
  return textTable(columns, rows);
}

function aimsTable(figures: readonly Figure[]): string {
  const of = (workload: string, reader: ReaderName) =>
    figures.find((each) => each.workload === workload && each.reader === reader);
  const rows: string[][] = [];
  for (const { name, aim, slow, depth } of WORKLOADS) {
    const direct = of(name, 'direct');
    const plain = of(name, 'plain');
    if (direct === undefined || plain === undefined) continue;
    const ratio = direct.rate.median / plain.rate.median;
    const result = ratio >= aim ? 'met' : 'missed';
    rows.push([name, 'direct to plain, reads/s', `${aim}`, ratio.toFixed(2), result]);
    if (!slow || depth < 2 * POOL_THREADS) continue;
    const wait = direct.poolWaitMs.median;
    const waitResult = wait <= POOL_WAIT_MS_AIM ? 'met' : 'missed';
    rows.push([name, 'pool wait ms, at most', `${POOL_WAIT_MS_AIM}`, `${wait}`, waitResult]);
  }
  const titles = ['workload', 'aim', '', 'now', ''];
  return textTable(
    titles.map((title, i) => ({ title, right: i === 2 || i === 3 })),
    rows,
  );
}

export async function measureColdReads(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      json: { type: 'string' },
      folder: { type: 'string', default: '/var/tmp' },
      seconds: { type: 'string', default: '1' },
      rounds: { type: 'string', default: '5' },
    },
  });
  const say = (step: string) => process.stderr.write(`==> ${step}\n`);
  process.env['UV_THREADPOOL_SIZE'] = `${POOL_THREADS}`;
  const load = loadavg()[0]!.toFixed(1);
  const folder = mkdtempSync(join(values.folder, 'obd-bench-'));
  const path = join(folder, 'file');
  const workers = new Map<ReaderName, Worker>();
  try {
    say(`making a file of ${FILE_BYTES >> 20} MiB`);
    makeFile(path);
    dropFromPageCache(path);
    for (const reader of READERS) workers.set(reader, await startReader({ reader, path }));
    const figures = await measure(
      workers,
      path,
      Number(values.seconds),
      Number(values.rounds),
      say,
    );
    const machine = `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}, load ${load} at the start`;
    const date = new Date().toISOString();
    process.stdout.write(`${date}, ${machine}\n\n${figuresTable(figures)}\n${aimsTable(figures)}`);
    if (values.json !== undefined) {
      const report = { date, machine, figures };
      writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
    }
  } finally {
    for (const worker of workers.values()) await worker.terminate();
    rmSync(folder, { recursive: true });
  }
}

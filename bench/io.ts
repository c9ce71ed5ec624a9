/**
 * `npm run bench:io`: reads of one image through every transport that this host has, compared with a peer that serves
 * the raw disk the same way, and their cost in CPU time. Servers that cannot be measured here are listed and left out.
 *
 *     npm run bench:io [-- --json FILE] [--folder DIR] [--disk-mib N] [--seconds N] [--rounds N] [--only socket,nbd]
 *
 * The servers of one transport take turns within each round, so that other load on the machine affects all of them;
 * each figure is the median of its rounds. Our side decompresses lz4 from twelve layers, the peers read one raw file.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { textTable } from '../src/cli/obdctl/text-table.js';
import { ErrorCodes, ObdError } from '../src/errors.js';
import {
  type Absent,
  PATHS,
  type PathName,
  type Served,
  startOwn,
  startPeers,
} from './io-servers.js';
import { fio, type Workload } from './programs.js';
import { type Sample, sampleOf } from './sample.js';
import { makeSampleImage } from './sample-image.js';

/** In /proc/PID/stat, on every Linux there is. */
const TICKS_PER_SECOND = 100;
const WARM_SECONDS = 1;

const random = { unit: 'reads/s', rw: 'randread', blockBytes: 4096 } as const;
const sequential = { unit: 'MiB/s', rw: 'read' } as const;
const WORKLOADS: readonly (Workload & { readonly socketOnly?: boolean })[] = [
  { name: '4 KiB random, depth 1', ...random, depth: 1 },
  { name: '4 KiB random, depth 32', ...random, depth: 32 },
  {
    name: '256 KiB sequential, depth 8',
    ...sequential,
    blockBytes: 256 << 10,
    depth: 8,
    socketOnly: true,
  },
  { name: '1 MiB sequential, depth 8', ...sequential, blockBytes: 1 << 20, depth: 8 },
];

interface Figure {
  readonly path: PathName;
  readonly workload: string;
  readonly unit: string;
  readonly server: string;
  readonly rate: Sample;
  /** Microseconds of the serving processes for each read. */
  readonly cpuPerRead: Sample;
}

/** User and system time of processes so far, in seconds. A process that has ended counts nothing: it was no server. */
function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const path = `/proc/${pid}/stat`;
    if (!existsSync(path)) continue;
    // Behind the program's name, which can have spaces in it: fields 14 and 15.
    const fields = readFileSync(path, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks / TICKS_PER_SECOND;
}

async function measurePath(
  path: PathName,
  servers: readonly Served[],
  seconds: number,
  rounds: number,
): Promise<Figure[]> {
  const figures: Figure[] = [];
  const warm = WORKLOADS.at(-1)!;
  for (const { target } of servers) await fio(warm, target, WARM_SECONDS);
  for (const workload of WORKLOADS) {
    if (workload.socketOnly && path !== 'socket') continue;
    const rates = servers.map((): number[] => []);
    const costs = servers.map((): number[] => []);
    for (let round = 0; round < rounds; round++) {
      for (const [i, server] of servers.entries()) {
        const pids = await server.pids();
        const before = cpuSeconds(pids);
        const { rate, reads } = await fio(workload, server.target, seconds);
        rates[i]!.push(rate);
        costs[i]!.push(((cpuSeconds(pids) - before) * 1e6) / reads);
      }
    }
    for (const [i, server] of servers.entries()) {
      figures.push({
        path,
        workload: workload.name,
        unit: workload.unit,
        server: server.name,
        rate: sampleOf(rates[i]!),
        cpuPerRead: sampleOf(costs[i]!),
      });
    }
  }
  return figures;
}

function table(figures: readonly Figure[]): string {
  const titles = ['path', 'workload', 'server', 'rate', '', 'CPU us/read', 'ours to it'];
  const columns = titles.map((title, i) => ({ title, right: i === 3 || i > 4 }));
  const rows = figures.map(({ path, workload, unit, server, rate, cpuPerRead }) => {
    const own = figures.find((each) => each.path === path && each.workload === workload)!;
    const ratio = own.server === server ? '' : `${(own.rate.median / rate.median).toFixed(2)} x`;
    return [
      path,
      workload,
      server,
      rate.median.toString(),
      unit,
      cpuPerRead.median.toString(),
      ratio,
    ];
  });
  return textTable(columns, rows);
}

function isServed(server: Served | Absent): server is Served {
  return 'target' in server;
}

function chosenPaths(only: string | undefined): readonly PathName[] {
  if (only === undefined) return PATHS;
  const chosen = only.split(',');
  const unknown = chosen.find((name) => !(PATHS as readonly string[]).includes(name));
  if (unknown === undefined) return PATHS.filter((path) => chosen.includes(path));
  const problem = `Cannot measure "${unknown}": it is one of ${PATHS.join(', ')}`;
  throw new ObdError(ErrorCodes.InvalidArgument, problem);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      json: { type: 'string' },
      folder: { type: 'string', default: '/var/tmp' },
      'disk-mib': { type: 'string', default: '256' },
      seconds: { type: 'string', default: '1' },
      rounds: { type: 'string', default: '5' },
      only: { type: 'string' },
    },
  });
  const say = (step: string) => process.stderr.write(`==> ${step}\n`);
  const folder = mkdtempSync(join(values.folder, 'obd-bench-'));
  const figures: Figure[] = [];
  const absent: Absent[] = [];
  const load = loadavg()[0]!.toFixed(1);
  try {
    say('making an image of twelve layers');
    const image = makeSampleImage(folder, Number(values['disk-mib']) << 20);
    for (const path of chosenPaths(values.only)) {
      const own = await startOwn(path, image, folder);
      const servers = isServed(own) ? [own, ...(await startPeers(path, image, folder))] : [own];
      for (const server of servers) {
        if (isServed(server)) continue;
        absent.push(server);
        say(`${server.name}: skipped, ${server.missing}`);
      }
      const present = servers.filter(isServed);
      try {
        if (!isServed(own)) continue;
        say(`reading through ${path}`);
        figures.push(
          ...(await measurePath(path, present, Number(values.seconds), Number(values.rounds))),
        );
      } finally {
        for (const server of present) await server.stop();
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  const machine = `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}, load ${load} at the start`;
  const date = new Date().toISOString();
  process.stdout.write(`${date}, ${machine}\n\n${table(figures)}`);
  if (values.json !== undefined) {
    const report = { date, machine, figures, absent };
    writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ObdError)) throw error;
  process.stderr.write(`bench:io: ${error.message}\n`);
  process.exitCode = 1;
}

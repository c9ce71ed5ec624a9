/**
 * `npm run bench:coldstart`: seconds from the start of a pull to the first output of a container, over emulated links, with
 * obd-ts and its peers. docs/benchmarks.md says how to read it.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { commandLine } from '../../src/cli/command-line.js';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { run } from '../programs.js';
import { judgedAims } from './aims.js';
import { chart } from './chart.js';
import { CpuShare } from './cpu-share.js';
import { cacheFolder } from './folders.js';
import { LINKS } from './link.js';
import { obdconvKey } from './obd-images.js';
import { findPrograms } from './peer-programs.js';
import { type CellResult, measurePlan } from './plan.js';
import { medianOf, summaries } from './summary.js';
import { aimTable, resultTable } from './table.js';
import { Unfinished } from './unfinished.js';
import type { Way } from './way.js';
import { WAYS } from './ways.js';
import { WORKLOADS } from './workloads.js';

const QUICK = { images: 'python,dense', links: 'slow,fast', minutes: 8, rounds: 1 };
const FULL = { images: undefined, links: undefined, minutes: 100, rounds: 3 };
/** Kept for the end of a run: the cell under way, and the clean-up. */
const LAST_CELL_MINUTES = 1;

/** Those of a comma-separated list. */
function chosen<T extends { readonly name: string }>(
  what: string,
  all: readonly T[],
  list: string | undefined,
): readonly T[] {
  if (list === undefined) return all;
  return list.split(',').map((name) => {
    const found = all.find((each) => each.name === name);
    if (found !== undefined) return found;
    const names = all.map((each) => each.name).join(', ');
    throw new ObdError(ErrorCodes.InvalidArgument, `No ${what} "${name}": there are ${names}`);
  });
}

function inQuickRun(way: Way): Way {
  return way.quickImages === undefined ? way : { ...way, images: way.quickImages };
}

/** Seconds that Node takes to do nothing, which every `obdctl rpull` takes too. */
async function measureNode(): Promise<number> {
  const seconds: number[] = [];
  for (let i = 0; i < 3; i++) {
    const begun = performance.now();
    await run(process.execPath, ['-e', '0']);
    seconds.push((performance.now() - begun) / 1000);
  }
  return medianOf(seconds);
}

/** @throws {ObdError} `InvalidArgument`. */
async function parseOptions() {
  const listOf = (all: readonly { readonly name: string }[]) =>
    all.map(({ name }) => name).join(', ');
  return await commandLine('bench:coldstart', process.argv.slice(2))
    .usage('Seconds from the start of a pull to the first output of a container, over slow links')
    .option('quick', {
      type: 'boolean',
      default: false,
      describe: 'python and dense on two links, one round, at most 8 minutes',
    })
    .option('only', { type: 'string', describe: `Images, with commas: ${listOf(WORKLOADS)}` })
    .option('link', { type: 'string', describe: `Links, with commas: ${listOf(LINKS)}` })
    .option('ways', { type: 'string', describe: `Ways, with commas: ${listOf(WAYS)}` })
    .option('rounds', { type: 'number', describe: 'How often each start is measured' })
    .option('peers-dir', { type: 'string', describe: 'A folder with programs of the peers' })
    .option('json', { type: 'string', describe: 'Write all measurements to this file' })
    .option('svg', { type: 'string', describe: 'Write the chart to this file' })
    .example('npm run bench:coldstart -- --quick', 'a first impression')
    .example(
      'npm run bench:coldstart -- --only jvm --link slow --ways obd,overlayfs --rounds 3',
      'Tomcat over 100 Mbit/s, three times each',
    )
    .epilogue(
      'A full run takes up to 100 minutes. To continue an interrupted run, repeat the command.',
    )
    .version(false)
    .strictCommands()
    .parseAsync();
}

async function main(): Promise<void> {
  const options = await parseOptions();
  const say = (step: string) => process.stderr.write(`==> ${step}\n`);
  const size = options.quick ? QUICK : FULL;
  const programs = await findPrograms(options.peersDir);
  const fits = (way: Way): boolean => {
    const missing = way.missing(programs);
    if (missing !== undefined) say(`${way.name}: left out, ${missing}`);
    return missing === undefined;
  };
  const byDefault = WAYS.filter(({ onDemand }) => onDemand !== true).map((way) =>
    options.quick ? inQuickRun(way) : way,
  );
  const ways = (options.ways === undefined ? byDefault : chosen('way', WAYS, options.ways)).filter(
    fits,
  );
  const workloads = chosen('image', WORKLOADS, options.only ?? size.images);
  const links = chosen('link', LINKS, options.link ?? size.links);
  const rounds = options.rounds ?? size.rounds;
  if (!(Number.isInteger(rounds) && rounds > 0)) {
    throw new ObdError(ErrorCodes.InvalidArgument, `--rounds is no count of rounds: ${rounds}`);
  }
  mkdirSync(cacheFolder(), { recursive: true });
  const names = [ways, workloads, links].map((all) => all.map(({ name }) => name).join());
  const key = [obdconvKey(), programs.containerd.version, `${rounds}`, ...names].join(' ');
  const isFull = !options.quick && options.only === undefined && options.ways === undefined;
  const unfinished = isFull ? new Unfinished(key) : undefined;
  const results: CellResult[] = [...(unfinished?.results ?? [])];
  if (results.length > 0)
    say(`goes on after ${results.length} starts of a run that was not finished`);

  const load = loadavg()[0]!.toFixed(1);
  const share = CpuShare.take();
  try {
    const nodeSeconds = await measureNode();
    const measured = await measurePlan({
      ...{ workloads, links, ways, rounds, programs, share, say },
      milliseconds: 60_000 * (size.minutes - LAST_CELL_MINUTES),
      isDone: (cell) => unfinished?.has(cell) ?? false,
      onResult: (result) => {
        results.push(result);
        unfinished?.add(result);
      },
    });
    const found = summaries(results);
    const aims = judgedAims({ summaries: found, results, ...measured, nodeSeconds });
    const machine = `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}, containerd ${programs.containerd.version}, load ${load} at the start`;
    const date = new Date().toISOString();
    const tables = `${resultTable(found, measured.limits)}\n${aimTable(aims)}`;
    process.stdout.write(`${date}, ${machine}\n\n${tables}`);
    if (options.json !== undefined) {
      const report = { date, machine, nodeSeconds, ...measured, summaries: found, aims, results };
      writeFileSync(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
    }
    if (options.svg !== undefined) {
      const titles = new Map(LINKS.map(({ name, title }) => [name as string, title]));
      writeFileSync(options.svg, chart(found, measured.limits, titles));
    }
    const failed = results.filter(({ problem }) => problem !== undefined).length;
    if (failed > 0) process.exitCode = 1;
    if (measured.leftOut > 0) {
      const remedy = unfinished === undefined ? '' : '; the same command goes on with them';
      say(`${measured.leftOut} starts left out after ${size.minutes} minutes${remedy}`);
    } else unfinished?.finish();
  } finally {
    share.release();
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ObdError)) throw error;
  process.stderr.write(`bench:coldstart: ${error.message}\n`);
  process.exitCode = 1;
}

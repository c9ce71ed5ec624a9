/**
 * `npm run bench:coldstart`: seconds from the start of a pull to the first output of a container, over emulated links, with
 * obd-ts and its peers. docs/benchmarks.md says how to read it.
 */
import { writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { ErrorCodes, ObdError } from '../../src/errors.js';
import { LINKS } from './link.js';
import { findPrograms } from './peer-programs.js';
import { type CellResult, measurePlan } from './plan.js';
import { resultTable } from './table.js';
import { WAYS } from './ways.js';
import { WORKLOADS } from './workloads.js';

const QUICK = { images: ['python', 'dense'], links: ['slow', 'fast'] };
const ROUNDS = 3;

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

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      link: { type: 'string' },
      ways: { type: 'string' },
      rounds: { type: 'string' },
      'peers-dir': { type: 'string' },
      json: { type: 'string' },
    },
  });
  const say = (step: string) => process.stderr.write(`==> ${step}\n`);
  const quick = values.quick ? QUICK : undefined;
  const programs = await findPrograms(values['peers-dir']);
  const ways = chosen('way', WAYS, values.ways).filter((way) => {
    const missing = way.missing(programs);
    if (missing !== undefined) say(`${way.name}: left out, ${missing}`);
    return missing === undefined;
  });
  const results: CellResult[] = [];
  const load = loadavg()[0]!.toFixed(1);
  const measured = await measurePlan({
    workloads: chosen('image', WORKLOADS, values.only ?? quick?.images.join(',')),
    links: chosen('link', LINKS, values.link ?? quick?.links.join(',')),
    ways,
    rounds: Number(values.rounds ?? (values.quick ? 1 : ROUNDS)),
    programs,
    say,
    onResult: (result) => results.push(result),
  });
  const machine = `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}, containerd ${programs.containerd.version}, load ${load} at the start`;
  const date = new Date().toISOString();
  process.stdout.write(`${date}, ${machine}\n\n${resultTable(results, measured.limits)}`);
  if (values.json !== undefined) {
    const report = { date, machine, ...measured, results };
    writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
  if (results.some(({ problem }) => problem !== undefined)) process.exitCode = 1;
}

try {
  await main();
} catch (error) {
  if (!(error instanceof ObdError)) throw error;
  process.stderr.write(`bench:coldstart: ${error.message}\n`);
  process.exitCode = 1;
}

/**
 * `npm run test:transports [-- [--short NAME]... NAME...]`: every check of every transport that this kernel has, or of
 * the named ones, a line for each. `--short` leaves out a transport's checks with the daemon. Needs root.
 *
 * The kernel modules of a transport are loaded first. The exit status is 0 if all checks passed, and at least one of
 * the transports was the kernel's own; fuse is not, it runs anywhere. Two transports are tested at a time: they share
 * nothing in the kernel.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { run } from 'node:test';
import { inspect, parseArgs } from 'node:util';
import { TRANSPORT_NAMES, type TransportName } from '../../src/blockdev/transport.js';
import { whyNot } from '../support/kernel-transports.js';

const MODULES = ['loop', 'fuse', 'nbd', 'target_core_user', 'tcm_loop', 'sd_mod', 'ublk_drv'];
const CONFIGFS = '/sys/kernel/config';
const AT_A_TIME = 2;
/** The summary that node:test prints at the end of a file. */
const TOTALS = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /;
const DIST = join(import.meta.dirname, '../..');

const { values, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { short: { type: 'string', multiple: true, default: [] } },
});
const short: readonly string[] = values.short;
const counts = { pass: 0, fail: 0, skipped: 0 };
const WORDS = { pass: 'ok', fail: 'not ok', skipped: 'skipped' } as const;

/** Prints a line, and below a failure its output. */
function report(outcome: keyof typeof counts, what: string, error?: unknown): void {
  counts[outcome]++;
  process.stdout.write(`${WORDS[outcome]} ${what}\n`);
  if (error === undefined) return;
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  process.stdout.write(inspect(cause).replace(/^/gm, '    ').concat('\n'));
}

function prepareKernel(): void {
  for (const module of MODULES) {
    try {
      execFileSync('modprobe', ['--quiet', module], { stdio: 'ignore' });
    } catch {
      // Not every kernel has all modules; a transport that lacks one reports it.
    }
  }
  if (!existsSync(`${CONFIGFS}/target`) && existsSync(CONFIGFS)) {
    execFileSync('mount', ['-t', 'configfs', 'configfs', CONFIGFS]);
  }
}

async function testTransport(name: TransportName): Promise<void> {
  const files = [
    `${DIST}/src/blockdev/${name === 'nbd' ? 'nbd-kernel' : name}/${name}-transport.test.js`,
  ];
  if (short.includes(name)) report('skipped', `${name}: with the daemon: only in the full run`);
  else files.push(`${DIST}/test/transports/${name}.test.js`);
  for await (const { type, data } of run({ files })) {
    if (type === 'test:diagnostic' && !TOTALS.test(data.message)) {
      process.stdout.write(`    ${name}: ${data.message}\n`);
    }
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    // The transport comes first, where the test does not say it.
    const title = data.name.startsWith(`${name}: `) ? data.name : `${name}: ${data.name}`;
    const line = `${title} (${(data.details.duration_ms / 1000).toFixed(1)} s)`;
    if (data.skip !== undefined) report('skipped', `${title}: ${data.skip}`);
    else if (type === 'test:pass') report('pass', line);
    else report('fail', line, data.details.error);
  }
}

/** Takes transports from the list until it is empty. */
async function testNext(names: TransportName[]): Promise<void> {
  for (let name = names.shift(); name !== undefined; name = names.shift()) {
    await testTransport(name);
  }
}

prepareKernel();
const here: TransportName[] = [];
for (const name of TRANSPORT_NAMES) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const missing = await whyNot(name);
  if (missing === undefined) here.push(name);
  else report('skipped', `${name}: ${missing}`);
}
const queue = [...here];
await Promise.all(Array.from({ length: AT_A_TIME }, () => testNext(queue)));
if (!here.some((name) => name !== 'fuse')) report('fail', 'this kernel has a transport of its own');
// As node:test ends its own reports.
for (const [name, count] of Object.entries(counts)) process.stdout.write(`# ${name} ${count}\n`);
if (counts.fail > 0) process.exitCode = 1;

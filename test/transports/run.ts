/**
 * `npm run test:transports`: every check of every transport that this kernel has, a line for each. Needs root.
 *
 * What a transport needs of the kernel is loaded first. The exit status is 0 if all checks passed, and one of the
 * transports at least was the kernel's own; fuse is not, it runs anywhere. Two transports are tested at a time: they
 * share nothing in the kernel.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { run } from 'node:test';
import { inspect } from 'node:util';
import { TRANSPORT_NAMES, type TransportName } from '../../src/blockdev/transport.js';
import { whyNot } from '../support/kernel-transports.js';

const MODULES = ['loop', 'fuse', 'nbd', 'target_core_user', 'tcm_loop', 'sd_mod', 'ublk_drv'];
const CONFIGFS = '/sys/kernel/config';
const AT_A_TIME = 2;

const counts = { ok: 0, failed: 0, skipped: 0 };

/** Prints a line, and below a failure what it was. */
function report(outcome: keyof typeof counts, what: string, error?: unknown): void {
  counts[outcome]++;
  const word = outcome === 'failed' ? 'not ok' : outcome;
  process.stdout.write(`${word} ${what}\n`);
  if (error === undefined) return;
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  process.stdout.write(inspect(cause).replace(/^/gm, '    ').concat('\n'));
}

function prepareKernel(): void {
  for (const module of MODULES) {
    try {
      execFileSync('modprobe', ['--quiet', module], { stdio: 'ignore' });
    } catch {
      // Not every kernel has all; whoever needs it says so.
    }
  }
  if (!existsSync(`${CONFIGFS}/target`) && existsSync(CONFIGFS)) {
    execFileSync('mount', ['-t', 'configfs', 'configfs', CONFIGFS]);
  }
}

async function runFiles(files: readonly string[]): Promise<void> {
  const events = run({ files: [...files], concurrency: AT_A_TIME });
  for await (const { type, data } of events) {
    if (type === 'test:diagnostic' && data.nesting > 0)
      process.stdout.write(`    ${data.message}\n`);
    if (type === 'test:stderr') process.stderr.write(data.message);
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const seconds = (data.details.duration_ms / 1000).toFixed(1);
    const name = labelled(data.name, data.file);
    if (data.skip !== undefined) report('skipped', `${name}: ${data.skip}`);
    else if (type === 'test:pass') report('ok', `${name} (${seconds} s)`);
    else report('failed', `${name} (${seconds} s)`, data.details.error);
  }
}

/** The transport comes first: the file says which, where the name does not. */
function labelled(name: string, file: string | undefined): string {
  const transport = /\/(\w+)(-transport)?\.test\.js$/.exec(file ?? '')?.[1];
  return name.startsWith(`${transport}: `) ? name : `${transport}: ${name}`;
}

const root = join(import.meta.dirname, '../..');
const conformance = (name: TransportName) =>
  `${root}/src/blockdev/${name}/${name}-transport.test.js`;
const kills = (name: TransportName) => `${root}/test/transports/${name}.test.js`;

prepareKernel();
const here: TransportName[] = [];
for (const name of TRANSPORT_NAMES) {
  const missing = await whyNot(name);
  if (missing === undefined) here.push(name);
  else report('skipped', `${name}: ${missing}`);
}
await runFiles(here.map(conformance));
await runFiles(here.map(kills));
process.stdout.write(`${counts.ok} ok, ${counts.failed} failed, ${counts.skipped} skipped\n`);
if (!here.some((name) => name !== 'fuse')) {
  process.stdout.write('not ok: this kernel has no transport of its own\n');
  process.exitCode = 1;
}
if (counts.failed > 0) process.exitCode = 1;

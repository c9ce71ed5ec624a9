/**
 * `npm run test:trust [-- --quick] [-- --seed N] [-- NAME...]`: runs every case of test/trust/, or of the named files, and
 * prints one line per case with the expected and the seen behaviour.
 *
 * `--quick` leaves slow cases out, for scripts/test.sh. The seed chooses order and kind of injected faults; it is printed,
 * and the same seed repeats a run. Cases that lack root or a program are skipped with their reason. The exit status is 0
 * if every case that ran passed.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from 'node:test';
import { inspect, parseArgs } from 'node:util';
import { TRUST_LINE, type TrustLine } from '../support/trust-case.js';

const ENDING = '.test.js';
/** Files at a time. Each has daemons of its own, and most of their time they wait. */
const CONCURRENCY = 2;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, seed: { type: 'string', default: '' } },
});
const seed = values.seed === '' ? String(Math.floor(Math.random() * 2 ** 31)) : values.seed;
// The files run as separate processes and inherit both.
process.env['OBD_TRUST_SEED'] = seed;
if (values.quick) process.env['OBD_TRUST_QUICK'] = '1';

const names = readdirSync(import.meta.dirname).filter((name) => name.endsWith(ENDING));
const wanted = names.filter(
  (name) => positionals.length === 0 || positionals.includes(name.slice(0, -ENDING.length)),
);
if (wanted.length === 0) {
  const known = names.map((name) => name.slice(0, -ENDING.length)).join(', ');
  process.stderr.write(`test:trust: no such file; there are: ${known}\n`);
  process.exit(2);
}

const counts = { pass: 0, fail: 0, skipped: 0 };
const failed = new Set<string>();
process.stdout.write(`seed ${seed}\n`);
const files = wanted.map((name) => join(import.meta.dirname, name));
for await (const { type, data } of run({ files, concurrency: CONCURRENCY })) {
  if (type === 'test:diagnostic' && data.message.startsWith(TRUST_LINE)) {
    const line = JSON.parse(data.message.slice(TRUST_LINE.length)) as TrustLine;
    const title = `${line.item}: ${line.name}`;
    const word = failed.has(title) ? 'not ok' : 'ok';
    const result = `expected: ${line.expected} | seen: ${line.seen} (${line.seconds} s)`;
    process.stdout.write(`${word} ${title} | ${result}\n`);
  }
  if (type !== 'test:pass' && type !== 'test:fail') continue;
  if (data.skip !== undefined) {
    counts.skipped++;
    process.stdout.write(`skipped ${data.name}: ${data.skip}\n`);
  } else if (type === 'test:pass') {
    counts.pass++;
  } else {
    counts.fail++;
    failed.add(data.name);
    const { cause } = data.details.error;
    process.stdout.write(`FAILED ${data.name}\n${inspect(cause).replace(/^/gm, '    ')}\n`);
  }
}
// As node:test ends its own reports.
for (const [name, count] of Object.entries(counts)) process.stdout.write(`# ${name} ${count}\n`);
if (counts.fail > 0) process.exitCode = 1;

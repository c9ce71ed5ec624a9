/**
 * `npm run bench`: the daemon on the whole path, compared with qemu-nbd (whole-path.ts); with `-- formats`, the cost of
 * the formats alone (formats.ts). Needs root, and the programs of docs/benchmarks.md.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ObdError } from '../src/errors.js';

if (process.argv[2] === 'formats') {
  await import('./formats.js');
} else {
  const { values } = parseArgs({ options: { json: { type: 'string' } } });
  const { figuresTable, measureWholePath } = await import('./whole-path.js');
  try {
    const report = await measureWholePath((step) => process.stderr.write(`==> ${step}\n`));
    process.stdout.write(figuresTable(report));
    if (values.json !== undefined) {
      writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
    }
  } catch (error) {
    if (!(error instanceof ObdError)) throw error;
    process.stderr.write(`bench: ${error.message}\n`);
    process.exitCode = 1;
  }
}

/**
 * `npm run bench` compares the daemon on the whole path with qemu-nbd (whole-path.ts). `-- formats` measures the formats
 * alone (formats.ts), and `-- cold-reads` reads of files that the page cache does not have (cold-reads.ts). Needs root, and
 * the programs of docs/benchmarks.md.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ObdError } from '../src/errors.js';

if (process.argv[2] === 'formats') {
  await import('./formats.js');
} else if (process.argv[2] === 'cold-reads') {
  const { measureColdReads } = await import('./cold-reads.js');
  await measureColdReads(process.argv.slice(3));
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

/**
 * `npm run test:predict [-- NAME...] [-- --files]`: predicts the starts of real images, and compares with what was recorded.
 *
 * A page counts if its file has the recorded size: another version of a package has other pages. Recall is the share of the
 * recorded files and pages that were predicted, precision the share of the predicted ones that were read; with read-ahead only
 * the number of pages of a file is recorded, so that precision is a bound. `--files` also lists
 * what was missed and what was predicted in vain. The exit status is 0 if each prediction reaches FILE_RECALL_MIN.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { LocalFile } from '../../src/io/local-file.js';
import { Ext4Tree } from '../../src/predict/ext4-tree.js';
import { ImageFiles } from '../../src/predict/image-files.js';
import { predictStart } from '../../src/predict/predict-start.js';
import type { PredictedFile } from '../../src/predict/prediction.js';
import { startCommand } from '../../src/predict/start-command.js';
import { PAGE_BYTES, type RecordedFile, recordedNames, recordedStart } from './recorded-start.js';

/** A change must not fall below it. */
const FILE_RECALL_MIN = 0.8;
const MADE_BY_RUNTIMES = new Set(['/etc/hosts', '/etc/resolv.conf', '/etc/hostname']);

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { files: { type: 'boolean', default: false } },
});
const names = recordedNames();
const wanted = names.filter((name) => positionals.length === 0 || positionals.includes(name));
if (wanted.length === 0) {
  const known = names.length === 0 ? 'there is no shared/vectors folder' : names.join(', ');
  process.stderr.write(`test:predict: no such recorded start; there are: ${known}\n`);
  process.exit(2);
}
for (const name of wanted) {
  if ((await measure(name)) < FILE_RECALL_MIN) process.exitCode = 1;
}

/** @returns The recall of files. */
async function measure(name: string): Promise<number> {
  const script = join(import.meta.dirname, 'make-image.sh').replace('/dist/', '/');
  const disk = execFileSync(script, [name], { encoding: 'utf8' }).trim();
  const { config, files } = recordedStart(name);
  const source = LocalFile.open(disk);
  const begin = performance.now();
  const tree = await Ext4Tree.open(source);
  const { files: predicted, isCut, readBytes } = await predictStart(tree, startCommand(config, {}));
  const milliseconds = Math.round(performance.now() - begin);
  source.close();
  const sizes = await sizesOf(disk, files);
  // A recorded image may have had packages that this one has not.
  const recorded = files.filter(({ path }) => sizes.has(path) && !MADE_BY_RUNTIMES.has(path));
  const pages = pagesOf(predicted);
  const known = new Map(recorded.map((file) => [file.path, file]));
  const hit = recorded.filter(({ path }) => pages.has(path));
  const comparable = recorded.filter(({ path, sizeBytes }) => sizes.get(path) === sizeBytes);
  const needed = sum(comparable.map((file) => file.pages.size));
  const found = sum(comparable.map((file) => common(file.pages, pages.get(file.path))));
  const others = new Set(
    recorded.filter((file) => !comparable.includes(file)).map(({ path }) => path),
  );
  const all = sum([...pages].map(([path, each]) => (others.has(path) ? 0 : each.size)));
  const ahead = sum(
    comparable.map((file) => Math.min(file.readAheadPages, pages.get(file.path)?.size ?? 0)),
  );
  const bytes = sum([...pages.values()].map((each) => each.size * PAGE_BYTES)) / 1e6;
  process.stdout.write(
    `${name}: ${pages.size} files, ${bytes.toFixed(1)} MB${isCut ? ', cut' : ''}; files R ${ratio(hit.length, recorded.length)} P ${ratio(hit.length, pages.size)}; pages R ${ratio(found, needed)} P ${ratio(found, all)}, with read-ahead at most ${ratio(ahead, all)} (of ${comparable.length} files of ${files.length}); ${milliseconds} ms, ${(readBytes / 1e6).toFixed(1)} MB read\n`,
  );
  printRules(predicted, known);
  if (values.files) printDifference(recorded, pages, predicted, known);
  return hit.length / recorded.length;
}

function printRules(predicted: readonly PredictedFile[], known: ReadonlyMap<string, RecordedFile>) {
  const rules = new Map<string, PredictedFile[]>();
  for (const file of predicted) {
    const key = `${file.rule} ${file.tier}`;
    rules.set(key, [...(rules.get(key) ?? []), file]);
  }
  for (const [rule, files] of [...rules].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const pages = pagesOf(files);
    const all = sum([...pages.values()].map((each) => each.size));
    const used = sum(
      [...pages].map(([path, each]) => common(known.get(path)?.pages ?? new Set(), each)),
    );
    const hits = [...pages.keys()].filter((path) => known.has(path)).length;
    process.stdout.write(
      `    ${rule.padEnd(14)} files ${hits}/${pages.size}, KB ${(used * 4).toString()}/${all * 4} (${ratio(used, all)})\n`,
    );
  }
}

function printDifference(
  recorded: readonly RecordedFile[],
  pages: ReadonlyMap<string, ReadonlySet<number>>,
  predicted: readonly PredictedFile[],
  known: ReadonlyMap<string, RecordedFile>,
) {
  for (const { path, pages: read } of recorded) {
    const missed = read.size - common(read, pages.get(path));
    if (!pages.has(path) || missed > 64)
      process.stdout.write(`    missed ${path}: ${missed} pages\n`);
  }
  for (const { path, ranges, tier, rule, reason } of predicted) {
    const bytes = sum(ranges.map(({ start, end }) => end - start));
    if (!known.has(path)) {
      process.stdout.write(
        `    in vain ${path}: ${bytes} bytes, tier ${tier}, ${rule}: ${reason}\n`,
      );
    }
  }
}

async function sizesOf(disk: string, recorded: readonly RecordedFile[]) {
  const source = LocalFile.open(disk);
  const image = new ImageFiles(await Ext4Tree.open(source));
  const sizes = new Map<string, number>();
  for (const { path } of recorded) {
    const found = await image.find(path);
    if (found !== undefined) sizes.set(path, found.sizeBytes);
  }
  source.close();
  return sizes;
}

/** The numbers of the predicted pages of each file. */
function pagesOf(predicted: readonly PredictedFile[]): Map<string, Set<number>> {
  const result = new Map<string, Set<number>>();
  for (const { path, ranges } of predicted) {
    const pages = result.get(path) ?? new Set();
    for (const { start, end } of ranges) {
      for (let page = Math.floor(start / PAGE_BYTES); page * PAGE_BYTES < end; page++)
        pages.add(page);
    }
    result.set(path, pages);
  }
  return result;
}

function common(pages: ReadonlySet<number>, others: ReadonlySet<number> | undefined): number {
  return others === undefined ? 0 : [...pages].filter((page) => others.has(page)).length;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function ratio(part: number, whole: number): string {
  return whole === 0 ? '-' : (part / whole).toFixed(2);
}

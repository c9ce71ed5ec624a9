/**
 * Goal: for any standard error, a write returns at once, lines stay whole, and dropped lines are counted and reported.
 * Method: real descriptors that fail: /dev/full, a full pipe, a pipe without a reader.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { LogOutput } from './log-output.js';

const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
const report = (lines: number) => `dropped ${lines}\n`;

/** Both ends of a pipe whose writing end is non-blocking, as Node makes that of standard error. */
function pipe(t: TestContext): { path: string; reader: number; writer: number } {
  const directory = mkdtempSync(join(tmpdir(), 'obdlog.'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'fifo');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, O_RDONLY | O_NONBLOCK);
  const writer = openSync(path, O_WRONLY | O_NONBLOCK);
  t.after(() => closeSync(writer));
  return { path, reader, writer };
}

function drain(fd: number): string {
  const buffer = Buffer.alloc(1 << 20);
  let length = 0;
  try {
    for (let got = -1; got !== 0; length += got) got = readSync(fd, buffer, length, 4096, null);
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'EAGAIN');
  }
  return buffer.toString('utf8', 0, length);
}

test('write() to a full device returns', (t) => {
  const fd = openSync('/dev/full', O_WRONLY);
  t.after(() => closeSync(fd));
  const output = new LogOutput(fd, report);
  for (let i = 0; i < 1000; i++) output.write(`line ${i}\n`);
});

test('a stalled pipe drops lines, and reports how many when it is read again', async (t) => {
  const { reader, writer } = pipe(t);
  t.after(() => closeSync(reader));
  const output = new LogOutput(writer, report);
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 50_000; i++) output.write(`${i} ${'x'.repeat(500)}\n`);
  assert.ok(process.memoryUsage().rss - before < 64 << 20, 'lines were buffered');
  const first = drain(reader).split('\n').slice(0, -1);
  for (const [i, line] of first.entries()) assert.equal(line, `${i} ${'x'.repeat(500)}`);
  await setTimeout(1_500);
  assert.equal(drain(reader), `dropped ${50_000 - first.length}\n`);
  output.write('after\n');
  assert.equal(drain(reader), 'after\n');
});

test('a line written in part is completed before the next one', async (t) => {
  const { reader, writer } = pipe(t);
  t.after(() => closeSync(reader));
  const output = new LogOutput(writer, report);
  const long = `${'a'.repeat(60_000)}\n`;
  output.write(long);
  output.write(long);
  output.write('lost\n');
  const part = drain(reader);
  output.write('next\n');
  const all = part + drain(reader);
  assert.equal(all, `${long}${long}dropped 1\nnext\n`);
});

test('a pipe without a reader drops lines until it has one', (t) => {
  const { path, reader, writer } = pipe(t);
  const output = new LogOutput(writer, report);
  closeSync(reader);
  output.write('lost\n');
  output.write('lost\n');
  const again = openSync(path, O_RDONLY | O_NONBLOCK);
  t.after(() => closeSync(again));
  output.write('next\n');
  assert.equal(drain(again), 'dropped 2\nnext\n');
});

test('a closed descriptor drops lines', () => {
  const fd = openSync('/dev/null', O_WRONLY);
  closeSync(fd);
  new LogOutput(fd, report).write('lost\n');
});

test('a line longer than the limit is cut', (t) => {
  const { reader, writer } = pipe(t);
  t.after(() => closeSync(reader));
  new LogOutput(writer, report).write(`${'b'.repeat(1 << 20)}\n`);
  const got = drain(reader);
  assert.ok(got.length <= (64 << 10) + 1, String(got.length));
});

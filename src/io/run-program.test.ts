/**
 * Goal: however a program ends, its caller is told in time, in one line.
 * Method: programs that every host has, among them one that waits for a writer that never comes.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { outputOf, runProgram } from './run-program.js';

const LONG_MS = 10_000;

test('returns its output with its exit status', async () => {
  const found = await runProgram('du', ['/nonexistent'], LONG_MS);
  assert.deepEqual([found.status, found.stdout], [1, '']);
  assert.match(found.stderr, /^du: .*No such file or directory$/);
  assert.match(await outputOf('du', ['--version'], LONG_MS), /^du \(GNU coreutils\)/);
});

test('a failure is reported with the last output and the command', async () => {
  await assert.rejects(outputOf('rm', ['/nonexistent'], LONG_MS), {
    code: ErrorCodes.Io,
    message: /^Cannot run `rm \/nonexistent`: rm: cannot remove .*No such file or directory$/,
  });
});

test('a hanging program is killed', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'obd-run-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  await assert.rejects(runProgram('dd', [`if=${pipe}`], 50), {
    code: ErrorCodes.Io,
    message: `Cannot run \`dd if=${pipe}\`: no end after 50 ms`,
  });
});

test('a missing program is named with its package', async (t) => {
  const path = process.env['PATH'];
  t.after(() => {
    process.env['PATH'] = path;
  });
  process.env['PATH'] = '/nonexistent';
  const wanted = { code: ErrorCodes.Host, message: /losetup: it is not installed.*install mount/ };
  await assert.rejects(runProgram('losetup', [], LONG_MS), wanted);
});

/**
 * Goal: a local file reads as the bytes it holds, and every way it can let us down has its own code.
 * Method: real files in a temporary directory.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { LocalFile } from './local-file.js';
import { readFully } from './random-access-file.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-local-file-'));
after(() => rmSync(directory, { recursive: true }));

function fileOf(name: string, bytes: Uint8Array): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}

test('reads any range', async () => {
  const bytes = Uint8Array.from({ length: 9000 }, (_, i) => i % 251);
  const file = LocalFile.open(fileOf('a', bytes));
  assert.equal(file.sizeBytes, 9000);
  const target = new Uint8Array(5000);
  await readFully(file, target, 3999);
  assert.deepEqual(target, bytes.subarray(3999, 8999));
  file.close();
  file.close();
});

test('refuses a missing path and a directory', () => {
  assert.throws(() => LocalFile.open(join(directory, 'none')), { code: ErrorCodes.NotFound });
  assert.throws(() => LocalFile.open(directory), { code: ErrorCodes.InvalidArgument });
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  assert.throws(() => LocalFile.open(pipe), { code: ErrorCodes.InvalidArgument });
});

test('a file that shrinks under us is corrupt, not zeroes', async () => {
  const path = fileOf('b', new Uint8Array(4096));
  const file = LocalFile.open(path);
  truncateSync(path, 100);
  await assert.rejects(readFully(file, new Uint8Array(200), 0), {
    code: ErrorCodes.Corrupt,
    details: { path, offset: 100 },
  });
  file.close();
});

test('a range outside the file is a bug of the caller', () => {
  const file = LocalFile.open(fileOf('c', new Uint8Array(10)));
  assert.throws(() => file.tryRead(new Uint8Array(2), 9), RangeError);
  file.close();
});

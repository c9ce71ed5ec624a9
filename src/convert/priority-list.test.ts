/**
 * Goal: a priority list gives its paths once each and in order; a list that cannot be one is refused by line and reason.
 * Method: small lists in files.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { readPriorityList } from './priority-list.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-priority-list-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'list');

test('readPriorityList() returns each path once, in order', async () => {
  writeFileSync(path, '/b\r\n\n/a b\n/b\n/ä');
  assert.deepEqual(await readPriorityList(path), ['/b', '/a b', '/ä']);
});

test('readPriorityList() refuses what is no list', async () => {
  const refused: ReadonlyArray<readonly [string, RegExp]> = [
    ['/a\n\nb\n', /line 3 is no absolute path/],
    ['\n', /names no file/],
    ['/a\n'.repeat(400_000), /more than 1048576 bytes/],
    [Array.from({ length: 10_001 }, (_, i) => `/${i}`).join('\n'), /10001 files/],
  ];
  for (const [text, message] of refused) {
    writeFileSync(path, text);
    await assert.rejects(readPriorityList(path), { code: ErrorCodes.InvalidArgument, message });
  }
  for (const other of [directory, join(directory, 'none')]) {
    await assert.rejects(readPriorityList(other), { code: ErrorCodes.InvalidArgument });
  }
});

/**
 * Goal: traces stay within their room, the oldest going first, and what a crash left goes, too.
 * Method: large traces in a directory of the test.
 */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { RecordedTraces } from './recorded-traces.js';

const MIB = 2 ** 20;
const home = mkdtempSync(join(tmpdir(), 'traces-'));
after(() => rmSync(home, { recursive: true }));

describe('RecordedTraces', () => {
  let directory: string;
  let traces: RecordedTraces;

  beforeEach(() => {
    directory = join(mkdtempSync(join(home, 'case-')), 'traces');
    traces = new RecordedTraces(directory);
  });

  test('a trace is replaced by the next one of the same layers', async () => {
    const path = traces.pathOf(['sha256:a', 'sha256:b']);
    await traces.keep(path, Buffer.from('first'));
    await traces.keep(path, Buffer.from('second'));
    assert.deepEqual(readdirSync(directory).length, 1);
    assert.equal(readFileSync(path, 'utf8'), 'second');
    assert.notEqual(traces.pathOf(['sha256:b', 'sha256:a']), path);
    assert.notEqual(traces.pathOf(['sha256:a']), path);
  });

  test('a much shorter trace takes the place of one at its second time', async () => {
    const path = traces.pathOf(['sha256:a']);
    await traces.keep(path, Buffer.alloc(2001));
    await traces.keep(path, Buffer.alloc(1000));
    await traces.keep(path, Buffer.alloc(2001));
    await traces.keep(path, Buffer.alloc(1000));
    assert.equal(readFileSync(path).length, 2001, 'not twice in a row');
    await traces.keep(path, Buffer.alloc(900));
    assert.equal(readFileSync(path).length, 900);
    await traces.keep(path, Buffer.alloc(2001));
    await traces.keep(path, Buffer.alloc(1001));
    assert.equal(readFileSync(path).length, 1001);
  });

  test('the oldest make room for the next', async () => {
    const paths = ['a', 'b', 'c'].map((name) => traces.pathOf([name]));
    for (const [i, path] of paths.entries()) {
      await traces.keep(path, Buffer.alloc(20 * MIB));
      utimesSync(path, 1000 + i, 1000 + i);
    }
    await traces.keep(traces.pathOf(['d']), Buffer.alloc(20 * MIB));
    const kept = readdirSync(directory).map((name) => join(directory, name));
    assert.deepEqual(kept.sort(), [paths[1], paths[2], traces.pathOf(['d'])].sort());
  });

  test('removes what a crash left', async () => {
    await traces.keep(traces.pathOf(['a']), Buffer.from('x'));
    const left = join(directory, '.new-0123456789abcdef');
    writeFileSync(left, 'half');
    utimesSync(left, 1000, 1000);
    writeFileSync(join(directory, '.new-fedcba9876543210'), 'being written');
    await traces.keep(traces.pathOf(['b']), Buffer.from('y'));
    assert.equal(readdirSync(directory).length, 3);
    assert.ok(!existsSync(left));
  });
});

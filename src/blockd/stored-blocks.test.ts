/**
 * Goal: each block of a disk is named once, when it is on this machine, and a start that ends ends the naming.
 * Method: a disk of two layers, whose blobs come in an order of the test's.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemoryFile } from '../../test/support/memory-file.js';
import type { StoredRange } from '../io/random-access-file.js';
import { storedBlocks } from './stored-blocks.js';

// The pauses between two looks keep no process.
const awake = setInterval(() => {}, 60_000);
after(() => clearInterval(awake));

const BLOCK = 4096;
const PIECE = 128 << 10;
const BLOCKS = 3 * 32 + 5;

/** Two layers that take turns on the disk, in pieces and a rest; between them is a hole of one block. */
const files = [new MemoryFile(Buffer.alloc(4 * PIECE)), new MemoryFile(Buffer.alloc(4 * PIECE))];
const parts = [
  { layer: 0, offset: 0, fileOffset: 512, length: 2 * PIECE },
  { layer: 1, offset: 2 * PIECE + BLOCK, fileOffset: 0, length: PIECE + 5 * BLOCK },
];
const disk = {
  eachPartOf: (
    _files: unknown,
    visit: (i: number, offset: number, fileOffset: number, length: number) => boolean,
  ) => {
    for (const { layer, offset, fileOffset, length } of parts) {
      if (!visit(layer, offset, fileOffset, length)) return;
    }
  },
};
for (const file of files) {
  Object.assign(file, {
    storedRanges: (offset: number, length: number) => [{ blob: file, offset, length }],
  });
}

test('blocks are named as they come, each once, and the end comes with the last', async () => {
  const here = new Set<string>();
  const isStored = ({ blob, offset }: StoredRange) =>
    here.has(`${files.indexOf(blob as MemoryFile)} ${offset}`);
  const named: number[] = [];
  const { signal } = new AbortController();
  const naming = (async () => {
    for await (const blocks of storedBlocks(disk, files, isStored, signal)) named.push(...blocks);
  })();
  await sleep(50);
  assert.deepEqual(named, []);
  here.add('1 0');
  await sleep(50);
  const first = 2 * 32 + 1;
  assert.deepEqual(
    named,
    Array.from({ length: 32 }, (_, i) => first + i),
  );
  for (const each of ['0 512', `0 ${512 + PIECE}`, `1 ${PIECE}`]) here.add(each);
  await naming;
  const expected = Array.from({ length: BLOCKS + 1 }, (_, i) => i).filter((i) => i !== 2 * 32);
  assert.deepEqual(
    named.toSorted((a, b) => a - b),
    expected,
  );
});

test('the signal ends the naming', async () => {
  const over = new AbortController();
  setTimeout(() => over.abort(), 50);
  for await (const blocks of storedBlocks(disk, files, () => false, over.signal)) {
    assert.fail(`${blocks.length} blocks that are not here`);
  }
});

/**
 * Goal: a start is trusted once, after enough known pages, and not while it reads others.
 * Method: reads of known pages and others, in several proportions.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TrustedStart } from './trusted-start.js';

/** @returns After how many reads of 16 KiB it was trusted. @param pages - Of each read, how many are known. */
function trustedAfter(pages: (i: number) => number, reads = 1000, error?: unknown): number[] {
  const progress = { read: 0 };
  const at: number[] = [];
  let i = 0;
  const start = new TrustedStart(progress, () => at.push(i));
  for (i = 1; i <= reads; i++) {
    progress.read += pages(i);
    start.ended('read', i * 16384, 16384, 0, 'local', error);
  }
  return at;
}

test('a start that reads what is known is trusted after 192 pages, once', () => {
  assert.deepEqual(
    trustedAfter(() => 4),
    [48],
  );
});

test('a start that reads a few others is trusted too', () => {
  assert.deepEqual(
    trustedAfter((i) => (i % 5 === 0 ? 0 : 4)),
    [59],
  );
});

test('a start that reads mostly others is not', () => {
  assert.deepEqual(
    trustedAfter((i) => (i % 2 === 0 ? 4 : 0)),
    [],
  );
  assert.deepEqual(
    trustedAfter(() => 0),
    [],
  );
});

test('a start that begins with others is trusted when known ones outweigh them', () => {
  assert.deepEqual(
    trustedAfter((i) => (i <= 20 ? 0 : 4)),
    [80],
  );
});

test('reads that failed say nothing', () => {
  assert.deepEqual(
    trustedAfter(() => 4, 100, new Error('EIO')),
    [],
  );
});

/**
 * Goal: a repeated line is logged at first, and then rarely, with how often it was left out.
 * Method: the clock of node:test.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogThrottle } from './log-throttle.js';

test('the first line of a kind is logged, the others are counted', () => {
  const throttle = new LogThrottle();
  const lines: string[] = [];
  for (let i = 0; i < 100; i++) {
    throttle.log(`device ${i % 2}`, (suppressed) => lines.push(`${i % 2}:${suppressed}`));
  }
  assert.deepEqual(lines, ['0:0', '1:0']);
});

test('after ten seconds there is another line, with the count', (t) => {
  let nowMs = 0;
  t.mock.method(performance, 'now', () => nowMs);
  const throttle = new LogThrottle();
  const counts: number[] = [];
  for (; nowMs <= 25_000; nowMs += 1_000) throttle.log('a', (count) => counts.push(count));
  assert.deepEqual(counts, [0, 9, 9]);
});

test('more kinds than are remembered are logged', () => {
  const throttle = new LogThrottle();
  let lines = 0;
  for (let i = 0; i < 5_000; i++) throttle.log(`${i}`, () => lines++);
  throttle.log('0', () => lines++);
  assert.equal(lines, 5_001);
});

/**
 * Goal: a recording has the reads of a start in their order, ends when the start is over, and is bounded.
 * Method: a clock of the test.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, mock, test } from 'node:test';
import { type DiskRead, ReadRecorder } from './read-recorder.js';

describe('ReadRecorder', () => {
  let ended: (readonly DiskRead[])[];
  let recorder: ReadRecorder;
  let nowMs: number;

  beforeEach(() => {
    nowMs = 0;
    mock.timers.enable({ apis: ['setInterval'] });
    mock.method(performance, 'now', () => nowMs);
    ended = [];
    recorder = new ReadRecorder((reads) => ended.push(reads), true);
  });
  afterEach(() => {
    recorder.end();
    mock.timers.reset();
    mock.restoreAll();
  });

  const read = (offset: number, length = 4096) =>
    recorder.ended('read', offset, length, 0, 'local', undefined);
  function pass(seconds: number, each: () => void = () => {}): void {
    for (let i = 0; i < seconds; i++) {
      each();
      nowMs += 1000;
      mock.timers.tick(1000);
    }
  }

  test('ends after ten quiet seconds, with the reads in their order', () => {
    read(8192);
    pass(3);
    read(0, 512);
    pass(10);
    assert.deepEqual(ended, []);
    pass(2);
    assert.deepEqual(ended, [
      [
        { offset: 8192, length: 4096, ms: 0 },
        { offset: 0, length: 512, ms: 3000 },
      ],
    ]);
    read(4096);
    pass(100);
    assert.equal(ended.length, 1);
  });

  test('orders the reads by when they began, as some waited longer than others', () => {
    nowMs = 500;
    read(0);
    recorder.ended('read', 8192, 4096, 450, 'loaded', undefined);
    recorder.end();
    const offsets = ended[0]?.map(({ offset, ms }) => [offset, ms]);
    assert.deepEqual(offsets, [
      [8192, 0],
      [0, 450],
    ]);
  });

  test('ends after a minute of reads', () => {
    pass(70, () => read(0));
    assert.equal(ended.length, 1);
    assert.ok(ended[0]!.length > 58 && ended[0]!.length < 64, `${ended[0]!.length} reads`);
  });

  test('waits for the first read for as long as it takes', () => {
    pass(1000);
    assert.deepEqual(ended, []);
    recorder.end();
    assert.deepEqual(ended, [], 'a start that read nothing is none');
  });

  test('keeps only reads that succeeded, and ends with the device', () => {
    recorder.ended('read', 1, 2, 0, 'loaded', new Error('unreadable'));
    recorder.ended('write', 3, 4, 0, 'loaded', undefined);
    read(512);
    recorder.end();
    recorder.end();
    assert.deepEqual(ended, [[{ offset: 512, length: 4096, ms: 0 }]]);
  });

  test('is full at its limit, and ends then', () => {
    for (let i = 0; i < 40_000; i++) read(i * 512, 512);
    pass(1);
    assert.equal(ended[0]!.length, 32_768);
    assert.equal(ended[0]!.at(-1)!.offset, 32_767 * 512);
  });

  test('without an end by time it ends by a call', () => {
    recorder.end();
    recorder = new ReadRecorder((reads) => ended.push(reads), false);
    read(4096);
    pass(200);
    assert.deepEqual(ended, []);
    recorder.end();
    assert.deepEqual(ended, [[{ offset: 4096, length: 4096, ms: 0 }]]);
  });
});

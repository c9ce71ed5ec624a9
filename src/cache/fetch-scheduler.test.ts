/**
 * Goal: fetches run in order, within the limits, and no lane keeps another waiting.
 * Method: fetches that end when the test says so.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FetchScheduler } from './fetch-scheduler.js';

const turn = () => new Promise(setImmediate);

function controlled(scheduler: FetchScheduler) {
  const started: string[] = [];
  const ends = new Map<string, () => void>();
  const run = (lane: object, name: string) =>
    scheduler.run(lane, () => {
      started.push(name);
      return new Promise<void>((resolve) => ends.set(name, resolve));
    });
  return { started, ends, run };
}

test('a lane has eight fetches at a time, in order, and another lane goes past it', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const hanging = {};
  const all = Array.from({ length: 10 }, (_, i) => run(hanging, `h${i}`));
  all.push(run({}, 'other'));
  assert.deepEqual(started, [], 'nothing starts in the turn in which it is asked for');
  await turn();
  assert.deepEqual(started, ['h0', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'h7', 'other']);
  ends.get('h3')?.();
  await turn();
  await turn();
  assert.equal(started.at(-1), 'h8');
  for (let i = 0; i < 3; i++) {
    for (const end of ends.values()) end();
    await turn();
    await turn();
  }
  await Promise.all(all);
});

test('sixty-four run at a time over all lanes, and one of each lane in any case', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const lanes = Array.from({ length: 10 }, () => ({}));
  const all = lanes.flatMap((lane, l) =>
    Array.from({ length: 8 }, (_, i) => run(lane, `${l}.${i}`)),
  );
  await turn();
  assert.deepEqual(started.slice(64), ['8.0', '9.0']);
  for (let i = 0; i < 4; i++) {
    for (const end of ends.values()) end();
    await turn();
    await turn();
  }
  await Promise.all(all);
});

test('a failure reaches who asked, and frees the place', async () => {
  const scheduler = new FetchScheduler();
  const lane = {};
  const failing = Array.from({ length: 9 }, () =>
    scheduler.run(lane, () => Promise.reject(new TypeError('as planned'))),
  );
  for (const each of failing) await assert.rejects(each, { message: 'as planned' });
});

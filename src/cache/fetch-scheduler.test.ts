/**
 * Goal: fetches run in order, within the limits; no lane delays another, and no prefetch a demand.
 * Method: fetches that end when the test says so.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Urgency } from '../io/ranged-source.js';
import { FetchScheduler, type Prioritized } from './fetch-scheduler.js';

const turn = () => new Promise(setImmediate);

function controlled(scheduler: FetchScheduler) {
  const started: string[] = [];
  const ends = new Map<string, () => void>();
  const run = (lane: object, name: string, priority: Prioritized = { urgency: 'demand' }) =>
    scheduler.run(lane, priority, () => {
      started.push(name);
      return new Promise<void>((resolve) => ends.set(name, resolve));
    });
  return { started, ends, run };
}

test('a lane has eight fetches at a time, in order, and does not block another lane', async () => {
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

test('sixty-four fetches run at a time over all lanes, and at least one of each lane', async () => {
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

/** Ends fetches as they start, until `all` have ended. */
async function drain(all: readonly Promise<void>[], ends: Map<string, () => void>): Promise<void> {
  let isOver = false;
  const done = Promise.all(all).then(() => {
    isOver = true;
  });
  while (!isOver) {
    for (const end of ends.values()) end();
    await turn();
  }
  await done;
}

test('demand starts before prefetches, which leave half of the places free', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const lane = {};
  const all = Array.from({ length: 6 }, (_, i) => run(lane, `p${i}`, { urgency: 'prefetch' }));
  all.push(run(lane, 'd0'), run(lane, 'd1'));
  await turn();
  assert.deepEqual(started, ['d0', 'd1', 'p0', 'p1']);
  all.push(...Array.from({ length: 5 }, (_, i) => run(lane, `late${i}`)));
  await turn();
  assert.deepEqual(started.slice(4), ['late0', 'late1', 'late2', 'late3']);
  ends.get('p0')?.();
  await turn();
  await turn();
  assert.deepEqual(started.slice(8), ['late4']);
  await drain(all, ends);
  assert.equal(started.length, all.length);
});

test('a promoted prefetch starts at once where it waited for a free half', async () => {
  const scheduler = new FetchScheduler();
  const { started, ends, run } = controlled(scheduler);
  const lane = {};
  const all = Array.from({ length: 4 }, (_, i) => run(lane, `d${i}`));
  const first: { urgency: Urgency } = { urgency: 'prefetch' };
  all.push(run(lane, 'first', first), run(lane, 'second', { urgency: 'prefetch' }));
  await turn();
  assert.equal(started.length, 4);
  first.urgency = 'demand';
  scheduler.promoted();
  await turn();
  assert.deepEqual(started.slice(4), ['first']);
  await drain(all, ends);
});

test('a failure reaches the caller, and frees the place', async () => {
  const scheduler = new FetchScheduler();
  const lane = {};
  const failing = Array.from({ length: 9 }, () =>
    scheduler.run(lane, { urgency: 'demand' }, () => Promise.reject(new TypeError('as planned'))),
  );
  for (const each of failing) await assert.rejects(each, { message: 'as planned' });
});

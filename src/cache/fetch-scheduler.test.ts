/**
 * Goal: fetches run in order, within the limits; no lane delays another, and no prefetch a demand.
 * Method: fetches that end when the test says so.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Urgency } from '../io/ranged-source.js';
import { FetchScheduler } from './fetch-scheduler.js';
import type { Lane } from './origin-queue.js';

const turn = () => new Promise(setImmediate);
const MIB = 1 << 20;

function laneAt(origin = 'registry.example'): Lane {
  return { origin };
}

function controlled(scheduler: FetchScheduler) {
  const started: string[] = [];
  const ends = new Map<string, () => void>();
  const run = (
    lane: Lane,
    name: string,
    wanted: { urgency: Urgency } = { urgency: 'demand' },
    image?: object,
  ) =>
    scheduler.run(lane, Object.assign(wanted, { bytes: MIB, image }), () => {
      started.push(name);
      return new Promise<void>((resolve) => ends.set(name, resolve));
    });
  return { started, ends, run };
}

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

test('a lane has twelve fetches at a time, in order, and does not block another lane', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const hanging = laneAt();
  const all = Array.from({ length: 14 }, (_, i) => run(hanging, `h${i}`));
  all.push(run(laneAt(), 'other'));
  assert.equal(started.length, 0, 'nothing starts in the turn in which it is asked for');
  await turn();
  assert.equal(started.length, 13);
  assert.ok(started.includes('h11') && started.includes('other'));
  ends.get('h3')?.();
  await turn();
  await turn();
  assert.equal(started.at(-1), 'h12');
  await drain(all, ends);
});

test('an origin has 32 fetches at a time, which its lanes share, and other origins have theirs', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const lanes = Array.from({ length: 8 }, () => laneAt());
  const all = lanes.flatMap((lane, l) =>
    Array.from({ length: 12 }, (_, i) => run(lane, `${l}.${i}`)),
  );
  const others = [1, 2].map((i) => laneAt(`registry${i}.example`));
  for (const lane of others)
    for (let i = 0; i < 12; i++) all.push(run(lane, `other ${lane.origin} ${i}`));
  await turn();
  const ofFirst = started.filter((name) => !name.startsWith('other'));
  assert.equal(ofFirst.length, 32);
  for (const l of lanes.keys()) {
    assert.equal(ofFirst.filter((name) => name.startsWith(`${l}.`)).length, 4, `lane ${l}`);
  }
  assert.equal(started.length, 56);
  await drain(all, ends);
});

test('images share an origin, however many blobs they have', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const images = [{}, {}];
  const all = Array.from({ length: 20 }, () => laneAt()).flatMap((lane, l) =>
    [0, 1].map((i) => run(lane, `many ${l}.${i}`, undefined, images[0])),
  );
  const single = laneAt();
  for (let i = 0; i < 20; i++) all.push(run(single, `one ${i}`, undefined, images[1]));
  await turn();
  // The one blob has as many as a blob may have.
  assert.equal(started.filter((name) => name.startsWith('one')).length, 12);
  assert.equal(started.filter((name) => name.startsWith('many')).length, 20);
  await drain(all, ends);
});

test('an origin with nothing in flight may always start one fetch', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const all: Promise<void>[] = [];
  for (let o = 0; o < 8; o++) {
    const lane = laneAt(`registry${o}.example`);
    for (let i = 0; i < 8; i++) all.push(run(lane, `${o}.${i}`));
  }
  await turn();
  const late = laneAt('late.example');
  all.push(run(late, 'late0'), run(late, 'late1'));
  await turn();
  assert.deepEqual(started.slice(64), ['late0']);
  await drain(all, ends);
});

test('demand starts before prefetches, and these before the background', async () => {
  const { started, ends, run } = controlled(new FetchScheduler());
  const lane = laneAt();
  const all = (['background', 'prefetch', 'demand'] as const).map((urgency) =>
    run(lane, urgency, { urgency }),
  );
  await turn();
  assert.deepEqual(started, ['demand'], 'what is in flight fills a link that is not measured yet');
  ends.get('demand')?.();
  await turn();
  await turn();
  assert.deepEqual(started, ['demand', 'prefetch']);
  await drain(all, ends);
  assert.deepEqual(started, ['demand', 'prefetch', 'background']);
});

/** A demand of 1 MiB, whose bytes arrive as the test says. */
function arriving(scheduler: FetchScheduler, lane: Lane, ends: Map<string, () => void>) {
  let received = (_bytes: number): void => {};
  const demand = scheduler.run(
    lane,
    { urgency: 'demand', bytes: MIB, image: undefined },
    (transfer) => {
      received = transfer.received;
      return new Promise<void>((resolve) => ends.set('demand', resolve));
    },
  );
  return { demand, arrive: (bytes: number) => received(bytes) };
}

test('a prefetch starts when most of what is in flight has arrived', async () => {
  const scheduler = new FetchScheduler();
  const { started, ends, run } = controlled(scheduler);
  const lane = laneAt();
  const { demand, arrive } = arriving(scheduler, lane, ends);
  const all = [demand, run(lane, 'prefetch', { urgency: 'prefetch' })];
  await turn();
  assert.deepEqual(started, []);
  arrive(MIB / 2);
  await turn();
  assert.deepEqual(started, ['prefetch']);
  await drain(all, ends);
});

test('the background starts when nearly all of what is in flight has arrived', async () => {
  const scheduler = new FetchScheduler();
  const { started, ends, run } = controlled(scheduler);
  const lane = laneAt();
  const { demand, arrive } = arriving(scheduler, lane, ends);
  const all = [demand, run(lane, 'background', { urgency: 'background' })];
  await turn();
  arrive(MIB / 2);
  await turn();
  assert.deepEqual(started, []);
  arrive(MIB / 2 - MIB / 8);
  await turn();
  assert.deepEqual(started, ['background']);
  await drain(all, ends);
});

test('a near link gets two large prefetches side by side, and many small ones', async () => {
  for (const [bytes, expected] of [
    [MIB, 2],
    [MIB / 8, 8],
  ] as const) {
    const scheduler = new FetchScheduler();
    const lane = laneAt();
    // 60 ms of bytes: enough to know a rate of 10 MiB for each ms, which permits more ahead.
    const transfer = scheduler.linkOf(lane).started(64 * MIB);
    transfer.received(MIB);
    for (let i = 0; i < 6; i++) {
      await sleep(10);
      transfer.received(10 * MIB);
    }
    transfer.ended();
    assert.ok(scheduler.linkOf(lane).aheadBytesMax > 4 * MIB);
    const ends: (() => void)[] = [];
    const all = Array.from({ length: 12 }, () =>
      scheduler.run(
        lane,
        { urgency: 'prefetch', bytes, image: undefined },
        () => new Promise<void>((resolve) => ends.push(resolve)),
      ),
    );
    await turn();
    assert.equal(ends.length, expected);
    for (let ended = 0; ended < all.length; await turn()) {
      while (ended < ends.length) ends[ended++]!();
    }
    await Promise.all(all);
  }
});

test('prefetches leave places of their lane to demand, and a promoted one is demand', async () => {
  const scheduler = new FetchScheduler();
  const { started, ends, run } = controlled(scheduler);
  const lane = laneAt();
  const first: { urgency: Urgency } = { urgency: 'prefetch' };
  const all = [run(lane, 'demand'), run(lane, 'first', first)];
  all.push(run(lane, 'second', { urgency: 'prefetch' }));
  await turn();
  assert.deepEqual(started, ['demand']);
  first.urgency = 'demand';
  scheduler.promoted();
  await turn();
  assert.deepEqual(started, ['demand', 'first']);
  await drain(all, ends);
});

test('a failure reaches the caller, and frees the place', async () => {
  const scheduler = new FetchScheduler();
  const lane = laneAt();
  const failing = Array.from({ length: 13 }, () =>
    scheduler.run(lane, { urgency: 'demand', bytes: MIB, image: undefined }, () =>
      Promise.reject(new TypeError('as planned')),
    ),
  );
  for (const each of failing) await assert.rejects(each, { message: 'as planned' });
});

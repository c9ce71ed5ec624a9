/**
 * Goal: a stuck thread is reported, once; a thread that is slow, or has ended, is not.
 * Method: real threads that block for a time they are told, and beats of a few milliseconds.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { Heartbeat } from './heartbeat.js';
import { ThreadCalls } from './thread-calls.js';

const BEAT_MS = 50;
/** Answers, after blocking for the time that the call names. */
const THREAD = `
  const { parentPort } = require('node:worker_threads');
  const cell = new Int32Array(new SharedArrayBuffer(4));
  parentPort.on('message', ({ call, parameters }) => {
    if (parameters > 0) Atomics.wait(cell, 0, 0, parameters);
    parentPort.postMessage({ answer: call, value: undefined });
  });
  parentPort.postMessage({ name: 'ready' });
`;

interface Scene {
  readonly thread: Worker;
  readonly silences: Error[];
  stand(ms: number): void;
}

async function start(t: TestContext): Promise<Scene> {
  const thread = new Worker(THREAD, { eval: true });
  const ready = once(thread, 'message');
  const calls = new ThreadCalls<{ wait(ms: number): void }, { ready(nothing: undefined): void }>(
    thread,
    { ready: () => {} },
  );
  await ready;
  thread.once('exit', () => calls.end('it has ended'));
  const silences: Error[] = [];
  const heartbeat = new Heartbeat(
    () => calls.call('wait', 0),
    BEAT_MS,
    (why) => silences.push(why),
  );
  t.after(async () => {
    heartbeat.stop();
    await thread.terminate();
  });
  return { thread, silences, stand: (ms) => void calls.call('wait', ms).catch(() => {}) };
}

test('a thread that answers, at times slowly, is not reported', async (t) => {
  const { silences, stand } = await start(t);
  for (let i = 0; i < 4; i++) {
    stand(BEAT_MS * 8);
    await sleep(BEAT_MS * 12);
  }
  assert.deepEqual(silences, []);
});

test('a stuck thread is reported once', async (t) => {
  const { silences, stand } = await start(t);
  stand(60_000);
  await sleep(BEAT_MS * 40);
  assert.deepEqual(
    silences.map(({ message }) => message),
    ['a thread has not answered for 0.6 s'],
  );
});

test('a thread that has ended is not reported as stuck', async (t) => {
  const { thread, silences } = await start(t);
  await thread.terminate();
  await sleep(BEAT_MS * 30);
  assert.deepEqual(silences, []);
});

/**
 * Goal: readFully() fetches and refetches as often as it says and no more, and never returns unchecked bytes.
 * Method: a file that plays a script of answers and counts what it was asked.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { type RandomAccessFile, REFETCHES_MAX, readFully } from './random-access-file.js';

type Answer = 'here' | 'absent' | 'damaged';

class ScriptedFile implements RandomAccessFile {
  readonly label = 'scripted';
  readonly sizeBytes = 4096;
  loads = 0;
  forgets = 0;
  readonly #next: () => Answer;
  readonly #refetchable: boolean;

  constructor(next: () => Answer, refetchable = true) {
    this.#next = next;
    this.#refetchable = refetchable;
  }

  tryRead(target: Uint8Array): boolean {
    const answer = this.#next();
    if (answer === 'damaged') throw new ObdError(ErrorCodes.Corrupt, 'Cannot read: damaged');
    if (answer === 'here') target.fill(7);
    return answer === 'here';
  }

  async load(): Promise<void> {
    this.loads++;
  }

  invalidate(): boolean {
    this.forgets++;
    return this.#refetchable;
  }

  close(): void {}
}

const script =
  (...answers: Answer[]) =>
  () =>
    answers.shift() ?? 'here';

test('local bytes cost no load', async () => {
  const file = new ScriptedFile(script('here'));
  await readFully(file, new Uint8Array(1), 0);
  assert.equal(file.loads, 0);
});

test('absent bytes are loaded, damaged ones dropped and loaded again', async () => {
  const file = new ScriptedFile(script('absent', 'damaged', 'here'));
  const target = new Uint8Array(1);
  await readFully(file, target, 0);
  assert.deepEqual([file.loads, file.forgets, target[0]], [2, 1, 7]);
});

test('damage that stays is reported after a bounded number of refetches', async () => {
  const file = new ScriptedFile(() => 'damaged');
  await assert.rejects(readFully(file, new Uint8Array(1), 0), { code: ErrorCodes.Corrupt });
  assert.equal(file.forgets, REFETCHES_MAX);
});

test('damage in the only copy is reported at once', async () => {
  const file = new ScriptedFile(() => 'damaged', false);
  await assert.rejects(readFully(file, new Uint8Array(1), 0), { code: ErrorCodes.Corrupt });
  assert.equal(file.loads, 0);
});

test('damage that stays for a whole deadline is waited out for 10 s afterwards', async () => {
  let answer: Answer = 'damaged';
  const file = Object.assign(new ScriptedFile(() => answer), { readWaitMs: 11_500 });
  const target = new Uint8Array(1);
  const timeToFail = async () => {
    const startedMs = performance.now();
    await assert.rejects(readFully(file, target, 0), { code: ErrorCodes.Corrupt });
    return performance.now() - startedMs;
  };
  const first = await timeToFail();
  const second = await timeToFail();
  assert.ok(first > 11_400 && first < 13_000, `${first} ms`);
  assert.ok(second > 9_900 && second < 11_200, `${second} ms`);
  assert.ok(file.loads < 34, `${file.loads} loads`);
  setTimeout(() => {
    answer = 'here';
  }, 500);
  await readFully(file, target, 0);
});

test('bytes evicted again and again end in an error, not a loop', async () => {
  const file = new ScriptedFile(() => 'absent');
  await assert.rejects(readFully(file, new Uint8Array(1), 0), { code: ErrorCodes.NoSpace });
});

test('a read with a deadline loads evicted bytes again until it passes', async () => {
  let absent = 12;
  const evicting = new ScriptedFile(() => (absent-- > 0 ? 'absent' : 'here'));
  await readFully(Object.assign(evicting, { readWaitMs: 10_000 }), new Uint8Array(1), 0);
  const gone = Object.assign(new ScriptedFile(() => 'absent'), { readWaitMs: 300 });
  const startedMs = performance.now();
  await assert.rejects(readFully(gone, new Uint8Array(1), 0), { code: ErrorCodes.NoSpace });
  assert.ok(performance.now() - startedMs >= 300);
});

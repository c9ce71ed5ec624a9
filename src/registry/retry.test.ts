/**
 * Goal: only transient errors are retried, as often and as long as the policy says.
 * Method: attempts that play a script, with pauses of milliseconds.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { RetryBudget, retryAfterMs, retrying } from './retry.js';

const policy = { attemptsMax: 4, backoffMs: 1, deadlineMs: undefined };
const away = (details = {}) => new ObdError(ErrorCodes.Unavailable, 'Cannot do it: away', details);

test('retries Unavailable until an attempt succeeds', async () => {
  let attempts = 0;
  const result = await retrying(policy, 'Cannot', undefined, async () => {
    if (++attempts < 4) throw away();
    return 'there';
  });
  assert.deepEqual([result, attempts], ['there', 4]);
});

test('gives up after the last attempt and reports the number', async () => {
  let attempts = 0;
  const failing = retrying(policy, 'Cannot', undefined, async () => {
    attempts++;
    throw away();
  });
  await assert.rejects(failing, { code: ErrorCodes.Unavailable, message: /after 4 attempts/ });
  assert.equal(attempts, 4);
});

test('retries no other error', async () => {
  for (const error of [new ObdError(ErrorCodes.NotFound, 'no'), new TypeError('a bug')]) {
    let attempts = 0;
    const failing = retrying(policy, 'Cannot', undefined, async () => {
      attempts++;
      throw error;
    });
    await assert.rejects(failing, error);
    assert.equal(attempts, 1);
  }
});

test('a deadline ends a hanging attempt and reports the previous error', async () => {
  let attempts = 0;
  const hanging = retrying(
    { ...policy, deadlineMs: 60 },
    'Cannot read',
    undefined,
    async (signal) => {
      if (++attempts === 1) throw away();
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    },
  );
  await assert.rejects(hanging, { code: ErrorCodes.Unavailable, message: /0\.06 s.*away/ });
  assert.equal(attempts, 2);
});

test('starts no pause that would outlast the deadline', async () => {
  const startedMs = performance.now();
  const failing = retrying({ ...policy, deadlineMs: 300 }, 'Cannot', undefined, async () => {
    throw away({ retryAfterMs: 10_000 });
  });
  await assert.rejects(failing, { code: ErrorCodes.Unavailable, message: 'Cannot do it: away' });
  assert.ok(performance.now() - startedMs < 200);
});

test('an abort ends a pause at once with its reason', async () => {
  const controller = new AbortController();
  const reason = new RangeError('enough');
  const pausing = retrying(
    { ...policy, backoffMs: 5000 },
    'Cannot',
    controller.signal,
    async () => {
      throw away();
    },
  );
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(pausing, reason);
  const late = retrying(policy, 'Cannot', controller.signal, async () => assert.fail());
  await assert.rejects(late, reason);
});

test('pauses grow, and a longer Retry-After replaces them', async () => {
  const budget = new RetryBudget({ attemptsMax: 4, backoffMs: 20, deadlineMs: undefined });
  const pauseOf = async (error: ObdError) => {
    const startedMs = performance.now();
    await budget.spend(error, undefined);
    return performance.now() - startedMs;
  };
  assert.ok((await pauseOf(away())) >= 9);
  assert.ok((await pauseOf(away())) >= 19);
  assert.ok((await pauseOf(away({ retryAfterMs: 120 }))) >= 119);
});

test('parses Retry-After in seconds and as a date', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(retryAfterMs('7', now), 7000);
  assert.equal(retryAfterMs(' 0 ', now), 0);
  assert.equal(retryAfterMs('Thu, 01 Jan 2026 00:00:30 GMT', now), 30_000);
  assert.equal(retryAfterMs('Thu, 01 Jan 2015 00:00:30 GMT', now), 0);
  for (const header of [undefined, '', 'soon', '-1x'])
    assert.equal(retryAfterMs(header, now), undefined);
});

/**
 * Goal: advice is set aside as soon as a start has to fetch more than it saves, and not for what a right one lacks.
 * Method: the misses of starts of the benchmark, with what had been saved before each, at 100 Mbit/s.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { ObdError } from '../errors.js';
import { AdviceTrial, CHUNKS_PER_MISS, PAGES_PER_MISS } from './advice-trial.js';

interface Scene {
  readonly trial: AdviceTrial;
  readonly refusals: ObdError[];
  /** Misses after so many have been saved. */
  missAt(saved: number): void;
  isComing: boolean;
}

function scene(worth = 60, savedBefore = 0): Scene {
  let saved = savedBefore;
  const refusals: ObdError[] = [];
  const advice = { worth, saved: () => saved, isComing: () => made.isComing };
  const made: Scene = {
    isComing: true,
    refusals,
    missAt: (now) => {
      saved = now;
      made.trial.missed();
    },
    trial: new AdviceTrial(advice, (why) => refusals.push(why)),
  };
  return made;
}

/** Ends the turn, in which a caller still has fetches to start. */
const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

describe('AdviceTrial', () => {
  test('keeps a prediction that lacks a part of what the start reads', async () => {
    const { missAt, trial, refusals } = scene(246 / CHUNKS_PER_MISS, 7 / CHUNKS_PER_MISS);
    for (const chunks of [18, 36, 68, 170]) {
      missAt(chunks / CHUNKS_PER_MISS);
      assert.equal(trial.isDoubted, false);
    }
    await turn();
    assert.equal(trial.isRefuted, false);
    assert.deepEqual(refusals, []);
  });

  test('keeps a hot blob whose first misses come together', async () => {
    const { missAt, trial } = scene(4724 / PAGES_PER_MISS);
    for (const pages of [539, 571, 571, 2346, 2353]) missAt(pages / PAGES_PER_MISS);
    assert.equal(trial.isRefuted, false);
  });

  test('refuses a load order of another command at its third miss, once', async () => {
    const { missAt, trial, refusals } = scene(649 / CHUNKS_PER_MISS, 7 / CHUNKS_PER_MISS);
    for (const chunks of [11, 14]) {
      missAt(chunks / CHUNKS_PER_MISS);
      assert.equal(trial.isDoubted, true);
    }
    assert.equal(trial.isRefuted, false);
    missAt(14 / CHUNKS_PER_MISS);
    assert.equal(trial.isRefuted, true);
    assert.equal(refusals.length, 0, 'its caller is told later');
    for (const chunks of [16, 18, 21]) missAt(chunks / CHUNKS_PER_MISS);
    await turn();
    assert.equal(refusals.length, 1);
    assert.match(refusals[0]!.message, /3 reads had to fetch/);
  });

  test('refuses at the second miss what saves nothing', () => {
    const { missAt, trial } = scene();
    missAt(0);
    assert.equal(trial.isRefuted, false);
    missAt(0);
    assert.equal(trial.isRefuted, true);
  });

  test('refuses a start that deviates late after nine misses, however much it has saved', () => {
    const { missAt, trial } = scene(1_000);
    for (let miss = 0; miss < 8; miss++) missAt(500);
    assert.equal(trial.isRefuted, false);
    missAt(500);
    assert.equal(trial.isRefuted, true);
  });

  test('ends when all has come and enough of it was read: later misses say nothing', () => {
    const later = scene(10);
    later.isComing = false;
    later.missAt(4);
    for (let miss = 0; miss < 50; miss++) later.missAt(4);
    assert.equal(later.trial.isRefuted, false);
    const never = scene(10);
    never.isComing = false;
    for (let miss = 0; miss < 3; miss++) never.missAt(0.5);
    assert.equal(never.trial.isRefuted, true);
  });

  test('ends with the start', (t) => {
    let nowMs = 1_000;
    t.mock.method(performance, 'now', () => nowMs);
    const { missAt, trial } = scene();
    nowMs += 60_001;
    for (let miss = 0; miss < 5; miss++) missAt(0);
    assert.equal(trial.isRefuted, true, 'as long as bytes come, they are judged');
    const ended = scene();
    ended.isComing = false;
    nowMs += 60_001;
    for (let miss = 0; miss < 5; miss++) ended.missAt(0);
    assert.equal(ended.trial.isRefuted, false);
  });
});

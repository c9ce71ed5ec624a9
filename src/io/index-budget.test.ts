/**
 * Goal: the budget refuses a charge that open images leave no room for, refuses at once a charge above the whole limit,
 * and lets a charge wait for other openings.
 * Method: accounts of one budget, also by the way that another thread joins them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes } from '../errors.js';
import { IndexAccount, IndexBudget } from './index-budget.js';

const refused = { code: ErrorCodes.Unsupported, message: /index_memory/ };

test('an image that alone exceeds the budget is refused at once, also while others are opened', async () => {
  const budget = new IndexBudget(100 << 10);
  await budget.account(false).charge(90 << 10, 'other');
  const large = budget.account(false);
  await large.charge(10 << 10, 'its tables');
  const startedMs = performance.now();
  await assert.rejects(large.charge(91 << 10, 'large'), refused);
  assert.ok(performance.now() - startedMs < 1000);
  large.close();
  assert.equal(budget.usedBytes, 90 << 10);
});

test('a charge that open images leave no room for is refused at once', async () => {
  const budget = new IndexBudget(100 << 10);
  const open = budget.account(false);
  await open.charge(60 << 10, 'open');
  open.opened();
  const next = budget.account(false);
  const startedMs = performance.now();
  await assert.rejects(next.charge(50 << 10, 'next'), refused);
  assert.ok(performance.now() - startedMs < 1000);
  open.close();
  open.close();
  await next.charge(50 << 10, 'next');
  next.close();
  assert.equal(budget.usedBytes, 0);
});

test('a charge waits for an opening on another thread, and gets the memory that it releases', async () => {
  const budget = new IndexBudget(100 << 10);
  const first = budget.account(false);
  await new IndexAccount(first.shared).charge(80 << 10, 'first');
  const second = budget.account(false);
  let isCharged = false;
  const charging = second.charge(40 << 10, 'second').then(() => {
    isCharged = true;
  });
  await sleep(150);
  assert.equal(isCharged, false);
  new IndexAccount(first.shared).release(30 << 10);
  await charging;
  first.opened();
  await assert.rejects(budget.account(false).charge(60 << 10, 'third'), refused);
  first.close();
  second.close();
  assert.equal(budget.usedBytes, 0);
});

test('the wait for other openings has an end', async () => {
  const budget = new IndexBudget(100 << 10);
  await budget.account(false).charge(80 << 10, 'first');
  await assert.rejects(budget.account(false).charge(40 << 10, 'second', 200), refused);
  assert.equal(budget.usedBytes, 80 << 10);
});

test('a device that is recovered is counted and never refused', async () => {
  const budget = new IndexBudget(100 << 10);
  const recovered = budget.account(true);
  await recovered.charge(300 << 10, 'recovered');
  recovered.opened();
  assert.equal(budget.usedBytes, 300 << 10);
  await assert.rejects(budget.account(false).charge(1, 'next'), refused);
  recovered.close();
});

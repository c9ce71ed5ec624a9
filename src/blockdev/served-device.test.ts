/**
 * Goal: the steps of a device run once at a time and once in all, in any order of calls; the id is released with the
 * device, and never a second time.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import { DeviceIdLocks } from './device-id-locks.js';
import { ServedDevice } from './served-device.js';

const ID = 'disk';

/** A device whose steps are noted, and fail as often as the test says. */
async function deviceOf(ids: DeviceIdLocks) {
  const steps: string[] = [];
  const failures = { takeAway: 0, cleanUp: 0 };
  const run = async (step: 'takeAway' | 'cleanUp' | 'stopServing') => {
    steps.push(step);
    await turn();
    if (step !== 'stopServing' && failures[step]-- > 0) {
      throw new ObdError(ErrorCodes.Busy, 'the device is in use');
    }
  };
  const device = await ids.acquire(
    ID,
    'attach',
    async () =>
      new ServedDevice(ID, ids, {
        path: '/dev/x',
        takeAway: () => run('takeAway'),
        cleanUp: () => run('cleanUp'),
        stopServing: () => run('stopServing'),
      }),
  );
  return { device, steps, failures };
}

test('detach() called several times runs each step once', async () => {
  const ids = new DeviceIdLocks();
  const { device, steps } = await deviceOf(ids);
  await Promise.all([device.detach(), device.detach()]);
  await device.detach();
  await device.release();
  assert.deepEqual(steps, ['takeAway', 'cleanUp']);
  assert.equal(device.isGone, true);
  assert.equal(ids.has(ID), false);
});

test('a failed detach() is continued where it failed', async () => {
  const ids = new DeviceIdLocks();
  const { device, steps, failures } = await deviceOf(ids);
  failures.takeAway = 1;
  failures.cleanUp = 1;
  await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
  assert.equal(device.isGone, false);
  await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
  assert.deepEqual([device.isGone, ids.has(ID)], [true, true]);
  await device.detach();
  assert.deepEqual(steps, ['takeAway', 'takeAway', 'cleanUp', 'cleanUp']);
  assert.equal(ids.has(ID), false);
});

test('release() called again does not release the id of the next device', async () => {
  const ids = new DeviceIdLocks();
  const { device, steps } = await deviceOf(ids);
  await Promise.all([device.release(), device.release()]);
  assert.deepEqual(steps, ['stopServing']);
  assert.equal(ids.has(ID), false);
  const next = await deviceOf(ids);
  await device.release();
  assert.equal(ids.has(ID), true);
  await assert.rejects(device.detach(), { code: ErrorCodes.FailedPrecondition });
  await next.device.detach();
  assert.equal(ids.has(ID), false);
});

test('release() during a detach() stops serving only if that fails', async () => {
  const ids = new DeviceIdLocks();
  const busy = await deviceOf(ids);
  busy.failures.takeAway = 1;
  const detached = assert.rejects(busy.device.detach(), { code: ErrorCodes.Busy });
  await busy.device.release();
  await detached;
  assert.deepEqual(busy.steps, ['takeAway', 'stopServing']);
  const free = await deviceOf(ids);
  const detaching = free.device.detach();
  await free.device.release();
  await detaching;
  assert.deepEqual(free.steps, ['takeAway', 'cleanUp']);
});

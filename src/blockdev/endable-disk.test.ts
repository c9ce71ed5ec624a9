/** Goal: once its reads are ended, no read that began before waits again, and later reads work as usual. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { EndableDisk } from './endable-disk.js';

test('a read that pauses between refetches of a damaged block ends too', async () => {
  let damaged = true;
  const disk = new EndableDisk({
    label: 'disk',
    sizeBytes: 512,
    tryRead: () => {
      if (damaged) throw new ObdError(ErrorCodes.Corrupt, 'damaged', {});
      return true;
    },
    load: async () => {},
    extentAt: (_, length) => length,
    invalidate: () => true,
    close: () => {},
  });
  disk.readWaitMs = 60_000;
  const target = new Uint8Array(1);
  const reading = assert.rejects(readFully(disk, target, 0), { code: ErrorCodes.Unavailable });
  await sleep(350);
  const endedMs = performance.now();
  disk.endLoads();
  await reading;
  assert.ok(performance.now() - endedMs < 1_500);
  await assert.rejects(disk.load(0, 1, endedMs + 59_999), { code: ErrorCodes.Unavailable });
  setTimeout(() => {
    damaged = false;
  }, 150);
  await readFully(disk, target, 0);
});

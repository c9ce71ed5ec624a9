/**
 * Goal: a read does not wait for TCP's time-out on a near link, and a registry that pauses itself gets no more than one
 * further request for each answer.
 * Method: a registry's blob in memory whose answers pause as told; a real cache.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble } from '../../test/support/blob-double.js';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, OpenBlob, withCache } from '../../test/support/cache-scene.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { BlockCache } from './block-cache.js';

after(removeCacheDirectories);

/** Longer than TCP's shortest time-out. */
const PAUSE_MS = 400;
const FAR_MS = 30;

/** A blob whose answers pause after `before` bytes, `pauses` times. */
async function pausingBlob(cache: BlockCache, before: number, pauses: number, firstByteMs = 0) {
  const ranges = new BlobDouble(CONTENT);
  const blob = await OpenBlob.open(cache, ranges);
  let left = pauses;
  ranges.arriving = async ({ length }, arrived, signal) => {
    await sleep(firstByteMs);
    arrived(Math.min(before, length - 1));
    if (left === 0) return;
    left--;
    await sleep(PAUSE_MS, undefined, signal && { signal }).catch(() => {
      throw signal?.reason;
    });
  };
  const load = async (chunk: number): Promise<number> => {
    const startedMs = performance.now();
    const options = { urgency: 'demand', waitMs: 10_000 } as const;
    await blob.handle.fetch(chunk * CHUNK_BYTES, 2 * CHUNK_BYTES, options);
    await assertReads(blob, chunk * CHUNK_BYTES, 2 * CHUNK_BYTES);
    return performance.now() - startedMs;
  };
  return { ranges, blob, load };
}

test('the rest of an answer that pauses comes on another connection, without what has arrived', async () => {
  await withCache(async (cache) => {
    const bytes = CHUNK_BYTES + 1000;
    const { ranges, load } = await pausingBlob(cache, bytes, 1);
    const ms = await load(0);
    assert.ok(ms < PAUSE_MS / 2, `${ms} ms`);
    const [, ...rest] = ranges.requests;
    assert.deepEqual(rest, [{ offset: bytes, length: 2 * CHUNK_BYTES - bytes }]);
  });
});

test('where the rest pauses too, the answer is kept, and so are those after it', async () => {
  await withCache(async (cache) => {
    const { ranges, load } = await pausingBlob(cache, 1000, 3);
    const ms = await load(0);
    assert.ok(ms >= PAUSE_MS, `${ms} ms`);
    assert.equal(ranges.requests.length, 2);
    const laterMs = await load(30);
    assert.ok(laterMs >= PAUSE_MS, `${laterMs} ms`);
    assert.equal(ranges.requests.length, 3);
  });
});

test('an answer over a far link is waited for', async () => {
  await withCache(async (cache) => {
    const { ranges, load } = await pausingBlob(cache, 1000, 1, FAR_MS);
    const ms = await load(10);
    assert.ok(ms >= PAUSE_MS, `${ms} ms`);
    assert.equal(ranges.requests.length, 1);
  });
});

test('the rest of an answer that no read waits for is waited for', async () => {
  await withCache(async (cache) => {
    const { ranges, blob, load } = await pausingBlob(cache, 3 * CHUNK_BYTES, 1);
    const ms = await load(0);
    assert.ok(ms < PAUSE_MS / 2, `${ms} ms`);
    while (!blob.isStored(4 * CHUNK_BYTES, 1)) await sleep(10);
    assert.equal(ranges.requests.length, 1);
  });
});

test('answers that pause together are waited for', async () => {
  await withCache(async (cache) => {
    const { ranges, load } = await pausingBlob(cache, 1000, 4);
    const times = await Promise.all([0, 13, 26, 38].map((chunk) => load(chunk)));
    assert.ok(Math.min(...times) >= PAUSE_MS, `${times}`);
    assert.equal(ranges.requests.length, 4);
  });
});

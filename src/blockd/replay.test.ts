/**
 * Goal: a replay fetches the chunks of its order in that order, in few requests, behind every demand, within the cache's room,
 * and ends without harm when it is stopped or its source fails.
 * Method: a real cache, with blobs in memory that count, hang and fail.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, gone, stall } from '../../test/support/blob-double.js';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, OpenBlob, withCache } from '../../test/support/cache-scene.js';
import type { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { CHUNKS_PER_MISS } from './advice-trial.js';
import { Replay } from './replay.js';

after(removeCacheDirectories);

interface Scene {
  readonly cache: BlockCache;
  readonly ranges: BlobDouble;
  readonly blob: OpenBlob;
}

async function withBlob(work: (scene: Scene) => Promise<void>): Promise<void> {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    await work({ cache, ranges, blob });
  });
}

function replayOf(chunks: readonly number[], { blob, cache }: Scene): Replay {
  const pairs = Uint32Array.from(chunks.flatMap((chunk) => [0, chunk]));
  const replay = new Replay(pairs, [blob.handle], cache);
  replay.guide([blob.handle], { missed: () => {}, isDoubted: false, isRefuted: false });
  return replay;
}

describe('Replay', () => {
  test('fetches what is missing, neighbours together, as prefetches', async () => {
    await withBlob(async (scene) => {
      const { blob, ranges } = scene;
      await assertReads(blob, 5 * CHUNK_BYTES, 10);
      ranges.requests.length = 0;
      ranges.urgencies.length = 0;
      const result = await replayOf([9, 3, 40, 5, 4, 8], scene).done;
      assert.deepEqual(ranges.requests, [
        { offset: 3 * CHUNK_BYTES, length: 2 * CHUNK_BYTES },
        { offset: 8 * CHUNK_BYTES, length: 2 * CHUNK_BYTES },
        { offset: 40 * CHUNK_BYTES, length: 1234 },
      ]);
      assert.deepEqual(new Set(ranges.urgencies), new Set(['prefetch']));
      assert.deepEqual(result, { fetchedBytes: 4 * CHUNK_BYTES + 1234, ended: 'complete' });
      for (const chunk of [3, 4, 8, 9]) await assertReads(blob, chunk * CHUNK_BYTES, CHUNK_BYTES);
      assert.equal(ranges.requests.length, 3, 'reads fetch nothing more');
    });
  });

  test('a read that comes first gets its chunk first, and no neighbours with it', async () => {
    await withBlob(async (scene) => {
      const { blob, ranges } = scene;
      let release = () => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      ranges.before = async () => {
        if (ranges.requests.length === 1) await held;
      };
      const replay = replayOf([0, 30, 20, 10], scene);
      blob.opened();
      const reading = blob.load(20 * CHUNK_BYTES, 10, performance.now() + 10_000);
      await reading;
      assert.ok(
        ranges.requests.some(
          ({ offset, length }) => offset === 20 * CHUNK_BYTES && length === CHUNK_BYTES,
        ),
      );
      release();
      await replay.done;
      const sum = ranges.requests.reduce((bytes, { length }) => bytes + length, 0);
      assert.equal(sum, 4 * CHUNK_BYTES, 'four chunks, and no more');
    });
  });

  test('puts off what is in flight for a miss that it does not know, while it is doubted', async () => {
    await withBlob(async (scene) => {
      const { blob, ranges } = scene;
      const ended: number[] = [];
      ranges.before = async ({ offset }, signal) => {
        if (offset / CHUNK_BYTES === 20 || ended.length > 0) return;
        await stall({ offset, length: 0 }, signal).catch((error: unknown) => {
          ended.push(offset / CHUNK_BYTES);
          throw error;
        });
      };
      const pairs = Uint32Array.from([0, 0, 0, 10]);
      const own = await OpenBlob.open(scene.cache, ranges);
      const replay = new Replay(pairs, [own.handle], scene.cache);
      let misses = 0;
      const trial = { missed: () => void misses++, isDoubted: true, isRefuted: false };
      replay.guide([blob.handle], trial);
      await sleep(20);
      blob.opened();
      await blob.load(20 * CHUNK_BYTES, 10, performance.now() + 10_000);
      assert.equal(misses, 1);
      assert.deepEqual(ended.sort(), [0, 10]);
      assert.equal(blob.handle.isStored(0), false);
      assert.equal((await replay.done).ended, 'complete');
      assert.ok(blob.handle.isStored(0) && blob.handle.isStored(10));
    });
  });

  test('puts nothing off that a read waits for', async () => {
    await withBlob(async (scene) => {
      const { blob, ranges } = scene;
      const aborted: number[] = [];
      let release = () => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      ranges.before = async ({ offset }, signal) => {
        signal?.addEventListener('abort', () => aborted.push(offset / CHUNK_BYTES));
        await held;
      };
      const own = await OpenBlob.open(scene.cache, ranges);
      const replay = new Replay(Uint32Array.from([0, 0, 0, 10]), [own.handle], scene.cache);
      await sleep(20);
      blob.opened();
      const reading = blob.load(0, 10, performance.now() + 10_000);
      replay.putOff();
      release();
      await reading;
      assert.equal((await replay.done).ended, 'complete');
      assert.deepEqual(aborted, [10]);
      const firsts = ranges.requests.map(({ offset }) => offset / CHUNK_BYTES);
      assert.deepEqual(firsts, [0, 10, 10], 'the chunk that is read is requested once');
    });
  });

  test('sees what reads use of it, also those that begin after its last chunk has come', async () => {
    await withBlob(async ({ cache, ranges, blob }) => {
      blob.handle.close();
      const own = await OpenBlob.open(cache, ranges);
      const replay = new Replay(Uint32Array.from([0, 0, 0, 5]), [own.handle], cache);
      await replay.done;
      const later = await OpenBlob.open(cache, ranges);
      for (const chunk of [0, 5]) await assertReads(later, chunk * CHUNK_BYTES, 10);
      assert.equal(replay.advice.saved(), 2 / CHUNKS_PER_MISS);
      replay.stop();
      later.handle.close();
    });
  });

  test('ends what is in flight at stop()', async () => {
    await withBlob(async (scene) => {
      scene.ranges.before = stall;
      const replay = replayOf([1, 9], scene);
      await sleep(20);
      replay.stop();
      assert.deepEqual(await replay.done, { fetchedBytes: 0, ended: 'stopped' });
    });
  });

  test('ends with the first failure, which it reports', async () => {
    await withBlob(async (scene) => {
      scene.ranges.before = gone;
      await assert.rejects(replayOf([1, 2, 3], scene).done, { code: ErrorCodes.NotFound });
    });
  });

  test('fetches nothing that would take the room of what is open', async () => {
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        const blob = await OpenBlob.open(cache, ranges);
        const result = await replayOf([0, 1, 2, 3, 4, 5, 6, 7], { cache, ranges, blob }).done;
        assert.deepEqual(result, { fetchedBytes: 0, ended: 'full' });
        assert.deepEqual(ranges.requests, []);
      },
      { capacityBytes: 6 * CHUNK_BYTES, reserveBytes: 0 },
    );
  });

  test('goes by the order, and counts the room for what is on its way', async () => {
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.before = () => sleep(50);
        const blob = await OpenBlob.open(cache, ranges);
        const fromTheEnd = Array.from({ length: 40 }, (_, i) => 39 - i);
        const result = await replayOf(fromTheEnd, { cache, ranges, blob }).done;
        assert.deepEqual(result, { fetchedBytes: 32 * CHUNK_BYTES, ended: 'full' });
        const firsts = ranges.requests.map(({ offset }) => offset / CHUNK_BYTES);
        assert.equal(Math.min(...firsts), 8);
      },
      { capacityBytes: 36 * CHUNK_BYTES, reserveBytes: 0 },
    );
  });

  test('ends when the cache stores nothing, whatever it said before', async () => {
    await withCache(
      async (cache) => {
        const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
        const fits = { fitsUnasked: async () => true };
        const result = await new Replay(Uint32Array.from([0, 1]), [blob.handle], fits).done;
        assert.equal(result.ended, 'full');
      },
      { capacityBytes: 1 << 30, reserveBytes: 2 ** 50 },
    );
  });

  test('begins no batch after stop()', async () => {
    await withBlob(async (scene) => {
      const replay = replayOf([1], scene);
      replay.stop();
      assert.equal((await replay.done).ended, 'stopped');
      assert.deepEqual(scene.ranges.requests, []);
    });
  });
});

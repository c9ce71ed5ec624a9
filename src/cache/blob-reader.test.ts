/**
 * Goal: threads that read one blob at once, and drop what fails their checks, see the blob's bytes or an error; what
 * is here asks nobody, and is counted right.
 * Method: real threads over a real cache; a registry's blob in memory that counts, fails and damages.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, truncateSync, writeSync } from 'node:fs';
import { after, test } from 'node:test';
import { BlobDouble, gone } from '../../test/support/blob-double.js';
import { withReadingThreads } from '../../test/support/blob-readers.js';
import { blobFiles, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, ROOM, withCache } from '../../test/support/cache-scene.js';
import { ErrorCodes } from '../errors.js';
import { CHUNK_BYTES, ChunkSet } from './chunk-set.js';

after(removeCacheDirectories);

const CHUNKS = Math.ceil(CONTENT.length / CHUNK_BYTES);
const chunkAt = (chunk: number) => ({ offset: chunk * CHUNK_BYTES, length: CHUNK_BYTES });

test('threads that read all of a blob at once fetch each chunk once', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(cache, blob, 3, async (threads) => {
      await Promise.all(
        threads.map((thread) => thread.call('read', { offset: 0, length: CONTENT.length })),
      );
      assert.equal(blob.requestedBytes, CONTENT.length);
      for (const thread of threads) assert.ok(await thread.call('readLocal', chunkAt(7)));
    });
  });
});

test('threads that read and drop the same chunks see the bytes, and the count stays right', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    const own = await cache.openBlob(blob);
    const chunks = new ChunkSet(CHUNKS, own.share().chunks);
    await withReadingThreads(cache, blob, 4, async (threads) => {
      const busy = threads.map((thread, i) => {
        const how = { seed: i, reads: 300, forgetShare: 0.1, parallel: 4 };
        return thread.call('readAtRandom', how);
      });
      for (let i = 0; i < 50; i++) await assertReads(own, i * 1000, 100_000);
      await Promise.all(busy);
    });
    const here = Array.from({ length: CHUNKS }, (_, chunk) => chunk).filter((c) => chunks.has(c));
    assert.equal(chunks.count, here.length);
    await assertReads(own, 0, CONTENT.length);
    assert.deepEqual([chunks.count, own.cachedBytes], [CHUNKS, CONTENT.length]);
  });
});

test('what a thread forgets it misses, until it is fetched again', async () => {
  await withCache(async (cache, directory, faults) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(cache, blob, 2, async ([one, other]) => {
      await one!.call('read', { offset: 0, length: CONTENT.length });
      const [path = ''] = blobFiles(directory);
      const file = openSync(path, 'r+');
      writeSync(file, Buffer.alloc(CHUNK_BYTES), 0, CHUNK_BYTES, 5 * CHUNK_BYTES);
      closeSync(file);
      await assert.rejects(other!.call('read', chunkAt(5)), /\[327680/);
      const before = blob.requests.length;
      assert.equal(await one!.call('forget', { offset: 5 * CHUNK_BYTES + 10, length: 1 }), true);
      assert.equal(await one!.call('readLocal', chunkAt(5)), false);
      assert.equal(
        await other!.call('readLocal', chunkAt(5)),
        false,
        'the other one sees that too',
      );
      assert.ok(await other!.call('readLocal', chunkAt(6)));
      await Promise.all([one!.call('read', chunkAt(5)), other!.call('read', chunkAt(5))]);
      assert.equal(blob.requests.length, before + 1);
      assert.deepEqual(
        faults.map(({ code }) => code),
        [ErrorCodes.Corrupt],
      );
    });
  });
});

test('what the disk does not give back is fetched again', async () => {
  await withCache(async (cache, directory, faults) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(cache, blob, 1, async ([thread]) => {
      await thread!.call('read', { offset: 0, length: CONTENT.length });
      truncateSync(blobFiles(directory)[0] ?? '', 20 * CHUNK_BYTES);
      await thread!.call('read', { offset: 0, length: CONTENT.length });
      assert.ok(faults.length > 0 && faults.every(({ code }) => code === ErrorCodes.Io));
    });
  });
});

test('where the cache has no room, threads are served from memory', async () => {
  for (const options of [{ capacityBytes: 0 }, { capacityBytes: 10 * CHUNK_BYTES }, ROOM]) {
    await withCache(async (cache) => {
      const blob = new BlobDouble(CONTENT);
      await withReadingThreads(cache, blob, 2, async (threads) => {
        const how = { reads: 60, forgetShare: 0.1, parallel: 2 };
        await Promise.all(
          threads.map((thread, seed) => thread.call('readAtRandom', { ...how, seed })),
        );
      });
    }, options);
  }
});

test('an error of the registry arrives as what it is', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(cache, blob, 1, async ([thread]) => {
      blob.before = gone;
      await assert.rejects(thread!.call('read', chunkAt(0)), {
        name: 'ObdError',
        code: ErrorCodes.NotFound,
        message: 'Cannot read: the registry double does not have it',
      });
      blob.before = async () => {};
      await thread!.call('read', chunkAt(0));
    });
  });
});

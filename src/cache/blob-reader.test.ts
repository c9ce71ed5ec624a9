/**
 * Goal: threads that read one blob at once, and drop chunks that fail their checks, see the blob's bytes or an error;
 * reads of cached chunks send no request, and the figures are right.
 * Method: real threads over a real cache; a registry's blob in memory that counts, fails and damages.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { BlobDouble, gone } from '../../test/support/blob-double.js';
import { withReadingThreads } from '../../test/support/blob-readers.js';
import { seededRandom } from '../../test/support/cache-crashing-file.js';
import {
  blobFiles,
  cacheDirectory,
  removeCacheDirectories,
} from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, OpenBlob, ROOM, withCache } from '../../test/support/cache-scene.js';
import { ErrorCodes } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { BlobFile } from './blob-file.js';
import { ChunkSet } from './chunk-set.js';
import { LocalDurableFile } from './durable-file.js';

after(removeCacheDirectories);

const CHUNKS = Math.ceil(CONTENT.length / CHUNK_BYTES);
const chunkAt = (chunk: number) => ({ offset: chunk * CHUNK_BYTES, length: CHUNK_BYTES });

test('threads that read all of a blob at once fetch each chunk once', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(
      () => cache.openBlob(blob),
      3,
      async (threads) => {
        await Promise.all(
          threads.map((thread) => thread.call('read', { offset: 0, length: CONTENT.length })),
        );
        assert.equal(blob.requestedBytes, CONTENT.length);
        for (const thread of threads) assert.ok(await thread.call('tryRead', chunkAt(7)));
      },
    );
  });
});

test('a chunk has another version after each fetch, for all readers, and none while it is not cached', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    const [one, two] = [await OpenBlob.open(cache, blob), await OpenBlob.open(cache, blob)];
    const seen = new Set<number>();
    for (let round = 0; round < 3; round++) {
      assert.deepEqual([one.versionOf(3), two.versionOf(3)], [0, 0]);
      await assertReads(one, 3 * CHUNK_BYTES, 100);
      const version = one.versionOf(3);
      assert.ok(version !== 0 && !seen.has(version), `${version}`);
      seen.add(version);
      await assertReads(two, 3 * CHUNK_BYTES, 100);
      assert.deepEqual([one.versionOf(3), two.versionOf(3)], [version, version]);
      const other = one.versionOf(4);
      two.invalidate(3 * CHUNK_BYTES, 10);
      assert.equal(one.versionOf(4), other);
    }
    one.close();
    two.close();
  });
});

test('threads that read and invalidate the same chunks see the bytes, and the count stays right', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    const own = await OpenBlob.open(cache, blob);
    const chunks = new ChunkSet(CHUNKS, own.handle.share().chunks);
    await withReadingThreads(
      () => cache.openBlob(blob),
      4,
      async (threads) => {
        const busy = threads.map((thread, i) => {
          const how = { seed: i, reads: 300, invalidateShare: 0.1, parallel: 4 };
          return thread.call('readAtRandom', how);
        });
        for (let i = 0; i < 50; i++) await assertReads(own, i * 1000, 100_000);
        await Promise.all(busy);
      },
    );
    const here = Array.from({ length: CHUNKS }, (_, chunk) => chunk).filter((c) => chunks.has(c));
    assert.equal(chunks.count, here.length);
    await assertReads(own, 0, CONTENT.length);
    assert.deepEqual([chunks.count, own.cachedBytes], [CHUNKS, CONTENT.length]);
  });
});

test('an invalidated chunk is a miss until it is fetched again', async () => {
  await withCache(async (cache, directory, faults) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(
      () => cache.openBlob(blob),
      2,
      async ([one, other]) => {
        await one!.call('read', { offset: 0, length: CONTENT.length });
        const [path = ''] = blobFiles(directory);
        const file = openSync(path, 'r+');
        writeSync(file, Buffer.alloc(CHUNK_BYTES), 0, CHUNK_BYTES, 5 * CHUNK_BYTES);
        closeSync(file);
        await assert.rejects(other!.call('read', chunkAt(5)), /\[327680/);
        const before = blob.requests.length;
        assert.equal(
          await one!.call('invalidate', { offset: 5 * CHUNK_BYTES + 10, length: 1 }),
          true,
        );
        assert.equal(await one!.call('tryRead', chunkAt(5)), false);
        assert.equal(
          await other!.call('tryRead', chunkAt(5)),
          false,
          'the other one sees that too',
        );
        assert.ok(await other!.call('tryRead', chunkAt(6)));
        await Promise.all([one!.call('read', chunkAt(5)), other!.call('read', chunkAt(5))]);
        assert.equal(blob.requests.length, before + 1);
        assert.deepEqual(
          faults.map(({ code }) => code),
          [ErrorCodes.Corrupt],
        );
      },
    );
  });
});

test('a chunk that the disk cannot read is fetched again', async () => {
  await withCache(async (cache, directory, faults) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(
      () => cache.openBlob(blob),
      1,
      async ([thread]) => {
        await thread!.call('read', { offset: 0, length: CONTENT.length });
        truncateSync(blobFiles(directory)[0] ?? '', 20 * CHUNK_BYTES);
        await thread!.call('read', { offset: 0, length: CONTENT.length });
        assert.ok(faults.length > 0 && faults.every(({ code }) => code === ErrorCodes.Io));
      },
    );
  });
});

/**
 * Reads by threads while this one evicts; fails where a reader sees a hole.
 * Each eviction follows a fetch: without a pause they starve the readers of a busy machine.
 */
async function readWhileEvicting(directory: string, readsPerThread: number): Promise<void> {
  const path = join(directory, 'blob');
  const digest = `sha256:${'d'.repeat(64)}`;
  const key = { origin: 'registry.example', digest, sizeBytes: CONTENT.length };
  const disk = await LocalDurableFile.create(path, BlobFile.fileBytes(CONTENT.length));
  const file = BlobFile.fresh(disk, key);
  await file.store(0, CONTENT);
  const share = { key, label: 'blob', fd: file.fd, chunks: file.chunks.memory };
  const progress = new EventEmitter();
  const link = {
    share: () => share,
    fetch: async (offset: number, length: number) => {
      progress.emit('step');
      const first = Math.floor(offset / CHUNK_BYTES);
      const end = Math.ceil((offset + length) / CHUNK_BYTES) * CHUNK_BYTES;
      await file.store(first, CONTENT.subarray(first * CHUNK_BYTES, end));
      return undefined;
    },
    invalidated: () => {},
    unreadable: assert.fail,
    close: () => {},
  };
  try {
    await withReadingThreads(
      async () => link,
      2,
      async (threads) => {
        let isReading = true;
        const how = { reads: readsPerThread, invalidateShare: 0, parallel: 4 };
        const all = Promise.all(
          threads.map((thread, seed) => thread.call('readAtRandom', { ...how, seed })),
        ).finally(() => {
          isReading = false;
          progress.emit('step');
        });
        const random = seededRandom(7);
        let evictions = 0;
        while (isReading) {
          const step = once(progress, 'step');
          const chunks = Array.from({ length: CHUNKS }, (_, chunk) => chunk);
          await file.evict(chunks.filter(() => random() < 0.1));
          // Out of the page cache too, so that some reads are direct.
          if (evictions++ % 8 === 0) await dropPageCache(path);
          await step;
        }
        await all;
        assert.ok(evictions > 10, `${evictions} evictions`);
      },
    );
  } finally {
    await file.close();
  }
}

test('threads that read while chunks are evicted and stored again see the bytes', async () => {
  await readWhileEvicting(cacheDirectory(), 700);
});

// On tmpfs fdatasync takes no time, so bits, reads and holes come close to each other.
const noShm = existsSync('/dev/shm') ? false : 'there is no /dev/shm';
test('threads that read during eviction from a file system in memory see the bytes', {
  skip: noShm,
}, async () => {
  const directory = mkdtempSync('/dev/shm/obd-cache-');
  try {
    await readWhileEvicting(directory, 800);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

async function dropPageCache(path: string): Promise<void> {
  await promisify(execFile)('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
}

test('threads are served from memory where the cache has no room', async () => {
  for (const options of [
    { capacityBytes: 0, reserveBytes: 0 },
    { capacityBytes: 10 * CHUNK_BYTES, reserveBytes: 0 },
    ROOM,
  ]) {
    await withCache(async (cache) => {
      const blob = new BlobDouble(CONTENT);
      await withReadingThreads(
        () => cache.openBlob(blob),
        2,
        async (threads) => {
          const how = { reads: 60, invalidateShare: 0.1, parallel: 2 };
          await Promise.all(
            threads.map((thread, seed) => thread.call('readAtRandom', { ...how, seed })),
          );
        },
      );
    }, options);
  }
});

test('a chunk in memory that one thread invalidates is not read by another', async () => {
  await withCache(
    async (cache) => {
      const blob = new BlobDouble(CONTENT);
      await withReadingThreads(
        () => cache.openBlob(blob),
        2,
        async ([one, other]) => {
          await Promise.all([one!.call('load', chunkAt(5)), other!.call('load', chunkAt(5))]);
          assert.ok(await other!.call('tryRead', chunkAt(5)), 'it is in the memory of both');
          await one!.call('invalidate', chunkAt(5));
          // Arrives after the invalidation by `one`.
          await one!.call('load', chunkAt(6));
          assert.equal(await other!.call('tryRead', chunkAt(5)), false);
          const before = blob.requests.length;
          await other!.call('read', chunkAt(5));
          assert.equal(blob.requests.length, before + 1);
        },
      );
    },
    { capacityBytes: 0, reserveBytes: 0 },
  );
});

test('an error of the registry reaches another thread with its code and message', async () => {
  await withCache(async (cache) => {
    const blob = new BlobDouble(CONTENT);
    await withReadingThreads(
      () => cache.openBlob(blob),
      1,
      async ([thread]) => {
        blob.before = gone;
        await assert.rejects(thread!.call('read', chunkAt(0)), {
          name: 'ObdError',
          code: ErrorCodes.NotFound,
          message: 'Cannot read: the registry double does not have it',
        });
        blob.before = async () => {};
        await thread!.call('read', chunkAt(0));
      },
    );
  });
});

/**
 * Goal: the cache fetches each byte once, in few requests; cached bytes survive restarts and are never wrong,
 * even if the registry, the disk or an earlier process fails.
 * Method: real files; a registry's blob in memory that counts, hangs, fails and damages.
 */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, distinctBytes, gone, stall } from '../../test/support/blob-double.js';
import {
  blobFiles,
  crashedCopy,
  removeCacheDirectories,
} from '../../test/support/cache-directories.js';
import {
  assertReads,
  CONTENT,
  OpenBlob,
  ROOM,
  read,
  withCache,
} from '../../test/support/cache-scene.js';
import { ErrorCodes } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { CHUNK_BYTES, type RandomAccessFile, REFETCHES_MAX } from '../io/random-access-file.js';
import type { BlobKey } from './blob-key.js';

after(removeCacheDirectories);

describe('fetching', () => {
  test('a read fetches its chunk once, and is local from then on', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      assert.equal(blob.tryRead(Buffer.alloc(10), 5), false);
      await assertReads(blob, 5, 10);
      await assertReads(blob, CHUNK_BYTES - 10, 10);
      assert.deepEqual(ranges.requests, [{ offset: 0, length: CHUNK_BYTES }]);
      assert.deepEqual(
        [blob.cachedBytes, blob.fetchedBytes, blob.fetchRequests],
        [CHUNK_BYTES, CHUNK_BYTES, 1],
      );
    });
  });

  test('the last chunk ends with the blob', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await assertReads(blob, CONTENT.length - 1, 1);
      assert.deepEqual(ranges.requests, [{ offset: 40 * CHUNK_BYTES, length: 1234 }]);
      assert.equal(blob.cachedBytes, 1234);
      await assertReads(blob, 0, CONTENT.length);
      assert.equal(blob.cachedBytes, CONTENT.length);
      assert.equal(ranges.requestedBytes, CONTENT.length);
    });
  });

  test('adjacent misses come in requests of at most 1 MiB', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await assertReads(blob, 0, CONTENT.length);
      assert.equal(ranges.requests.length, 3);
      assert.equal(Math.max(...ranges.requests.map(({ length }) => length)), 1 << 20);
      assert.equal(ranges.requestedBytes, CONTENT.length);
    });
  });

  test('adjacent chunks read one by one in one turn come in one request', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await Promise.all([10, 11, 12].map((chunk) => assertReads(blob, chunk * CHUNK_BYTES, 100)));
      await Promise.all([32, 31, 30].map((chunk) => assertReads(blob, chunk * CHUNK_BYTES, 100)));
      assert.deepEqual(
        ranges.requests.map(({ offset, length }) => [offset, length].map((n) => n / CHUNK_BYTES)),
        [
          [10, 3],
          [30, 3],
        ],
      );
    });
  });

  test('a chunk is fetched once for all handles of the blob', async () => {
    await withCache(async (cache) => {
      const blobs = [
        new BlobDouble(CONTENT, 'registry.example/one'),
        new BlobDouble(CONTENT, 'registry.example/two'),
      ];
      const handles = await Promise.all(blobs.map((ranges) => OpenBlob.open(cache, ranges)));
      await Promise.all(
        Array.from({ length: 50 }, (_, i) => assertReads(handles[i % 2]!, 3 * CHUNK_BYTES, 4096)),
      );
      assert.equal(blobs[0]!.requests.length + blobs[1]!.requests.length, 1);
      assert.equal(handles[0]!.fetchRequests + handles[1]!.fetchRequests, 1);
    });
  });

  test('at most twelve requests for a blob are in flight', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      const chunks = Array.from({ length: 20 }, (_, i) => 2 * i);
      await Promise.all(chunks.map((chunk) => assertReads(blob, chunk * CHUNK_BYTES, 1)));
      assert.equal(ranges.parallelMax, 12);
    });
  });

  test('keeps the bytes of each registry separate', async () => {
    const evil = distinctBytes(CONTENT.length, 666);
    for (const options of [ROOM, { capacityBytes: 0, reserveBytes: 0 }]) {
      await withCache(async (cache) => {
        const good = new BlobDouble(CONTENT);
        const liar = new BlobDouble(evil, 'liar.example/app', good.digest);
        const lie = await OpenBlob.open(cache, liar);
        assert.ok((await read(lie, 0, 10)).equals(evil.subarray(0, 10)));
        await assertReads(await OpenBlob.open(cache, good), 0, 10);
        lie.close();
      }, options);
    }
  });

  test('an empty blob and an empty read succeed, a read beyond the blob fails', async () => {
    await withCache(async (cache) => {
      const empty = await OpenBlob.open(cache, new BlobDouble(new Uint8Array(0)));
      assert.ok(empty.tryRead(new Uint8Array(0), 0));
      await empty.load(0, 0);
      assert.equal(empty.cachedBytes, 0);
      const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      assert.ok(blob.tryRead(new Uint8Array(0), CONTENT.length));
      assert.throws(() => blob.tryRead(new Uint8Array(2), CONTENT.length - 1), RangeError);
      await assert.rejects(blob.load(-1, 2), RangeError);
    });
  });
});

describe('failing registries', () => {
  test('a failed fetch fails only its readers, and the next read tries again', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await assertReads(blob, 0, 10);
      ranges.before = gone;
      await assert.rejects(read(blob, 9 * CHUNK_BYTES, 10), { code: ErrorCodes.NotFound });
      await assertReads(blob, 20, 10);
      ranges.before = async () => {};
      await assertReads(blob, 9 * CHUNK_BYTES, 10);
    });
  });

  test('a handle fetches from its own registry when that of another handle fails', async () => {
    await withCache(async (cache) => {
      const broken = new BlobDouble(CONTENT, 'registry.example/broken');
      broken.before = gone;
      const [bad, good] = await Promise.all([
        OpenBlob.open(cache, broken),
        OpenBlob.open(cache, new BlobDouble(CONTENT)),
      ]);
      const refused = assert.rejects(read(bad, 0, 10), { code: ErrorCodes.NotFound });
      await good.load(0, 10);
      assert.ok(good.tryRead(Buffer.alloc(10), 0), 'load() resolved before the bytes were here');
      await refused;
      await assertReads(bad, 0, 10);
    });
  });

  test('a hanging registry delays no other blob, and close() ends the wait', async () => {
    await withCache(async (cache) => {
      const hanging = new BlobDouble(CONTENT, 'registry.example/hanging');
      hanging.before = stall;
      const stuck = await OpenBlob.open(cache, hanging);
      const waits = Array.from({ length: 20 }, (_, i) =>
        assert.rejects(read(stuck, 2 * i * CHUNK_BYTES, 10), {
          code: ErrorCodes.FailedPrecondition,
        }),
      );
      const other = distinctBytes(1000, 2);
      const blob = await OpenBlob.open(cache, new BlobDouble(other));
      assert.ok((await read(blob, 0, 1000)).equals(other));
      stuck.close();
      await Promise.all(waits);
    });
  });

  test('other handles fetch by themselves when the fetching one is closed', async () => {
    await withCache(async (cache) => {
      const hanging = new BlobDouble(CONTENT, 'registry.example/hanging');
      hanging.before = stall;
      const first = await OpenBlob.open(cache, hanging);
      const second = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      const refused = assert.rejects(read(first, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await sleep(20);
      const waiting = assertReads(second, 0, 10);
      first.close();
      await Promise.all([refused, waiting]);
    });
  });

  test('late bytes of a closed handle do not replace newer ones', async () => {
    await withCache(async (cache) => {
      const late = new BlobDouble(CONTENT, 'registry.example/late');
      let arrive = () => {};
      late.before = () =>
        new Promise((resolve) => {
          arrive = resolve;
        });
      late.damage = (target) => target.fill(0);
      const first = await OpenBlob.open(cache, late);
      const second = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      const refused = assert.rejects(read(first, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await sleep(20);
      first.close();
      await refused;
      await assertReads(second, 0, 1000);
      arrive();
      await sleep(20);
      await assertReads(second, 0, 1000);
    });
  });

  test('close() does not wait for a source that ignores the abort', async () => {
    const ranges = new BlobDouble(CONTENT);
    ranges.before = () => new Promise(() => {});
    await withCache(async (cache) => {
      const blob = await OpenBlob.open(cache, ranges);
      const refused = assert.rejects(read(blob, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await sleep(20);
      await cache.close();
      await refused;
    });
  });
});

/** Checks every byte as a format does, and accepts only right bytes. */
class CheckedFile implements RandomAccessFile {
  readonly label = 'checked';
  readonly sizeBytes = CONTENT.length;
  readonly #file: RandomAccessFile;

  constructor(file: RandomAccessFile) {
    this.#file = file;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    if (!this.#file.tryRead(target, offset)) return false;
    if (CONTENT.subarray(offset, offset + target.length).equals(target)) return true;
    throw corrupt(this, offset, 'not the bytes that were sent');
  }

  load(offset: number, length: number): Promise<void> {
    return this.#file.load(offset, length);
  }

  invalidate(offset: number, length: number): boolean {
    return this.#file.invalidate(offset, length);
  }

  close(): void {
    this.#file.close();
  }
}

describe('damaged bytes', () => {
  test('from the registry are fetched again once', async () => {
    await withCache(async (cache, _directory, faults) => {
      const ranges = new BlobDouble(CONTENT);
      ranges.damage = (target) => {
        if (ranges.requests.length === 1) target.fill(0, 7, 9);
      };
      const blob = await OpenBlob.open(cache, ranges);
      await assertReads(new CheckedFile(blob), 0, 100);
      assert.equal(ranges.requests.length, 2);
      assert.equal(
        faults[0]?.message,
        `Fetching 100 bytes of ${ranges.label} at 0 again: they failed a check`,
      );
    });
  });

  test('without room on the disk are fetched again', async () => {
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.damage = (target) => {
          if (ranges.requests.length === 1) target.fill(0, 7, 9);
        };
        await assertReads(new CheckedFile(await OpenBlob.open(cache, ranges)), 0, 100);
        assert.equal(ranges.requests.length, 2);
      },
      { capacityBytes: 0, reserveBytes: 0 },
    );
  });

  test('in every answer fail the read after a bounded number of requests', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      ranges.damage = (target) => target.fill(0);
      const blob = new CheckedFile(await OpenBlob.open(cache, ranges));
      await assert.rejects(read(blob, 0, 100), { code: ErrorCodes.Corrupt });
      assert.equal(ranges.requests.length, 1 + REFETCHES_MAX);
    });
  });

  test('on the disk are fetched again', async () => {
    await withCache(async (cache, directory) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await OpenBlob.open(cache, ranges);
      await assertReads(blob, 0, 4096);
      writeFileSync(blobFiles(directory)[0]!, 'damage', { flag: 'r+' });
      await assertReads(new CheckedFile(blob), 0, 4096);
      assert.equal(ranges.requests.length, 2);
    });
  });

  test('in a truncated cache file cost a fetch', async () => {
    await withCache(async (cache, directory, faults) => {
      const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      await assertReads(blob, 5 * CHUNK_BYTES, 4096);
      truncateSync(blobFiles(directory)[0]!, 100);
      await assertReads(blob, 5 * CHUNK_BYTES, 4096);
      assert.equal(faults[0]?.code, ErrorCodes.Io);
    });
  });
});

describe('openBlob()', () => {
  test('refuses an invalid key, and two sizes of one key', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const { key, label, attempt } = ranges;
      const keyed = (part: Partial<BlobKey>) => ({ key: { ...key, ...part }, label, attempt });
      const wrong = keyed({ digest: '../../etc/passwd' });
      const outside = keyed({ origin: '..' });
      await assert.rejects(cache.openBlob(outside), { code: ErrorCodes.InvalidArgument });
      await assert.rejects(cache.openBlob(wrong), { code: ErrorCodes.InvalidArgument });
      await OpenBlob.open(cache, ranges);
      const longer = keyed({ sizeBytes: CONTENT.length + 1 });
      await assert.rejects(cache.openBlob(longer), { code: ErrorCodes.InvalidArgument });
      const huge = keyed({ digest: `sha256:${'0'.repeat(64)}`, sizeBytes: 2 ** 41 });
      await assert.rejects(cache.openBlob(huge), { code: ErrorCodes.Unsupported });
    });
  });

  test('opens a copy of the directory after a crash, and reads right', async () => {
    await withCache(async (cache, directory) => {
      await assertReads(await OpenBlob.open(cache, new BlobDouble(CONTENT)), 0, 1000);
      const copy = crashedCopy(directory);
      await withCache(
        async (second) => {
          await assertReads(await OpenBlob.open(second, new BlobDouble(CONTENT)), 0, 1000);
        },
        ROOM,
        copy,
      );
    });
  });
});

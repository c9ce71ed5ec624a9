/**
 * Goal: what is fetched is fetched once, in few requests, survives restarts, and is never wrong, whatever
 * the registry, the disk or an earlier process did.
 * Method: real files; a registry's blob in memory that counts, hangs, fails and damages.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { BlobDouble, distinctBytes, stall, unavailable } from '../../test/support/blob-double.js';
import {
  blobFiles,
  cacheDirectory,
  crashedCopy,
  removeCacheDirectories,
} from '../../test/support/cache-directories.js';
import { ErrorCodes, type ObdError } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { type RandomAccessFile, REFETCHES_MAX, readFully } from '../io/random-access-file.js';
import { BlockCache } from './block-cache.js';
import { CHUNK_BYTES } from './chunk-set.js';

after(removeCacheDirectories);

const ROOM = { capacityBytes: 1 << 30 };
const CONTENT = distinctBytes(40 * CHUNK_BYTES + 1234);

async function read(file: RandomAccessFile, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xee);
  await readFully(file, target, offset);
  return target;
}

async function assertReads(file: RandomAccessFile, offset: number, length: number): Promise<void> {
  const found = await read(file, offset, length);
  assert.ok(found.equals(CONTENT.subarray(offset, offset + length)), `[${offset}, +${length})`);
}

async function withCache<T>(
  work: (cache: BlockCache, directory: string, faults: ObdError[]) => Promise<T>,
  options: { capacityBytes: number } = ROOM,
  directory = cacheDirectory(),
): Promise<T> {
  const faults: ObdError[] = [];
  const cache = await BlockCache.open(directory, {
    ...options,
    report: (fault) => faults.push(fault),
  });
  try {
    return await work(cache, directory, faults);
  } finally {
    await cache.close();
  }
}

describe('fetching', () => {
  test('a read fetches its chunk once, and is local from then on', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      assert.equal(blob.readLocal(Buffer.alloc(10), 5), false);
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
      const blob = await cache.openBlob(ranges);
      await assertReads(blob, CONTENT.length - 1, 1);
      assert.deepEqual(ranges.requests, [{ offset: 40 * CHUNK_BYTES, length: 1234 }]);
      assert.equal(blob.cachedBytes, 1234);
      await assertReads(blob, 0, CONTENT.length);
      assert.equal(blob.cachedBytes, CONTENT.length);
      assert.equal(ranges.requestedBytes, CONTENT.length);
    });
  });

  test('chunks missed together come in requests of at most 1 MiB', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      await assertReads(blob, 0, CONTENT.length);
      assert.equal(ranges.requests.length, 3);
      assert.equal(Math.max(...ranges.requests.map(({ length }) => length)), 1 << 20);
      assert.equal(ranges.requestedBytes, CONTENT.length);
    });
  });

  test('neighbours asked for one by one in one turn come in one request', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
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
      const blobs = [new BlobDouble(CONTENT, 'one/app'), new BlobDouble(CONTENT, 'two/app')];
      const handles = await Promise.all(blobs.map((ranges) => cache.openBlob(ranges)));
      await Promise.all(
        Array.from({ length: 50 }, (_, i) => assertReads(handles[i % 2]!, 3 * CHUNK_BYTES, 4096)),
      );
      assert.equal(blobs[0]!.requests.length + blobs[1]!.requests.length, 1);
      assert.equal(handles[0]!.fetchRequests + handles[1]!.fetchRequests, 1);
    });
  });

  test('a sweep is read ahead of, and scattered reads are not', async () => {
    await withCache(async (cache) => {
      const swept = new BlobDouble(CONTENT);
      const sweep = await cache.openBlob(swept);
      for (let at = 0; at + 4096 <= CONTENT.length; at += 4096) await assertReads(sweep, at, 4096);
      assert.ok(swept.requests.length <= 12, `${swept.requests.length} requests`);
      assert.equal(swept.requestedBytes, CONTENT.length);
    });
    await withCache(async (cache) => {
      const scattered = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(scattered);
      for (const chunk of [30, 2, 17, 25, 9]) await assertReads(blob, chunk * CHUNK_BYTES, 4096);
      assert.equal(scattered.requestedBytes, 5 * CHUNK_BYTES);
    });
  });

  test('readahead ends where chunks are here, and is joined to no other handle’s', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      for (const chunk of [13, 8, 9, 10, 11, 12]) await assertReads(blob, chunk * CHUNK_BYTES, 1);
      assert.equal(ranges.requestedBytes, 6 * CHUNK_BYTES);
      const other = await cache.openBlob(new BlobDouble(CONTENT));
      await Promise.all([
        assertReads(blob, 30 * CHUNK_BYTES, 1),
        assertReads(other, 32 * CHUNK_BYTES, 1),
        assertReads(other, 31 * CHUNK_BYTES, 1),
      ]);
      assert.deepEqual([blob.fetchedBytes, other.fetchedBytes], [7 * CHUNK_BYTES, 3 * CHUNK_BYTES]);
    });
  });

  test('no more than eight requests for a blob are under way', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      const chunks = Array.from({ length: 20 }, (_, i) => 2 * i);
      await Promise.all(chunks.map((chunk) => assertReads(blob, chunk * CHUNK_BYTES, 1)));
      assert.equal(ranges.parallelMax, 8);
    });
  });

  test('an empty blob, an empty read and an end beyond the blob', async () => {
    await withCache(async (cache) => {
      const empty = await cache.openBlob(new BlobDouble(new Uint8Array(0)));
      assert.ok(empty.readLocal(new Uint8Array(0), 0));
      await empty.load(0, 0);
      assert.equal(empty.cachedBytes, 0);
      const blob = await cache.openBlob(new BlobDouble(CONTENT));
      assert.ok(blob.readLocal(new Uint8Array(0), CONTENT.length));
      assert.throws(() => blob.readLocal(new Uint8Array(2), CONTENT.length - 1), RangeError);
      await assert.rejects(blob.load(-1, 2), RangeError);
    });
  });
});

describe('failing registries', () => {
  test('a failed fetch fails its readers alone, and the next read tries again', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      await assertReads(blob, 0, 10);
      ranges.before = unavailable;
      await assert.rejects(read(blob, 9 * CHUNK_BYTES, 10), { code: ErrorCodes.Unavailable });
      await assertReads(blob, 20, 10);
      ranges.before = async () => {};
      await assertReads(blob, 9 * CHUNK_BYTES, 10);
    });
  });

  test('where one handle’s registry fails, another’s own is tried', async () => {
    await withCache(async (cache) => {
      const broken = new BlobDouble(CONTENT, 'broken/app');
      broken.before = unavailable;
      const [bad, good] = await Promise.all([
        cache.openBlob(broken),
        cache.openBlob(new BlobDouble(CONTENT)),
      ]);
      const refused = assert.rejects(read(bad, 0, 10), { code: ErrorCodes.Unavailable });
      await good.load(0, 10);
      assert.ok(good.readLocal(Buffer.alloc(10), 0), 'load() resolved before the bytes were here');
      await refused;
      await assertReads(bad, 0, 10);
    });
  });

  test('one that hangs delays no other blob, and closing ends the wait', async () => {
    await withCache(async (cache) => {
      const hanging = new BlobDouble(CONTENT, 'hanging/app');
      hanging.before = stall;
      const stuck = await cache.openBlob(hanging);
      const waits = Array.from({ length: 20 }, (_, i) =>
        assert.rejects(read(stuck, 2 * i * CHUNK_BYTES, 10), {
          code: ErrorCodes.FailedPrecondition,
        }),
      );
      const other = distinctBytes(1000, 2);
      const blob = await cache.openBlob(new BlobDouble(other));
      assert.ok((await read(blob, 0, 1000)).equals(other));
      stuck.close();
      await Promise.all(waits);
    });
  });

  test('closing the handle that fetches leaves the others to fetch for themselves', async () => {
    await withCache(async (cache) => {
      const hanging = new BlobDouble(CONTENT, 'hanging/app');
      hanging.before = stall;
      const first = await cache.openBlob(hanging);
      const second = await cache.openBlob(new BlobDouble(CONTENT));
      const refused = assert.rejects(read(first, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await new Promise((resolve) => setTimeout(resolve, 20));
      const waiting = assertReads(second, 0, 10);
      first.close();
      await Promise.all([refused, waiting]);
    });
  });

  test('what arrives after the handle was closed is not stored over what came since', async () => {
    await withCache(async (cache) => {
      const late = new BlobDouble(CONTENT, 'late/app');
      let arrive = () => {};
      late.before = () =>
        new Promise((resolve) => {
          arrive = resolve;
        });
      late.damage = (target) => target.fill(0);
      const first = await cache.openBlob(late);
      const second = await cache.openBlob(new BlobDouble(CONTENT));
      const refused = assert.rejects(read(first, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await new Promise((resolve) => setTimeout(resolve, 20));
      first.close();
      await refused;
      await assertReads(second, 0, 1000);
      arrive();
      await new Promise((resolve) => setTimeout(resolve, 20));
      await assertReads(second, 0, 1000);
    });
  });

  test('one that does not even heed the abort cannot hold up close()', async () => {
    const ranges = new BlobDouble(CONTENT);
    ranges.before = () => new Promise(() => {});
    await withCache(async (cache) => {
      const blob = await cache.openBlob(ranges);
      const refused = assert.rejects(read(blob, 0, 10), { code: ErrorCodes.FailedPrecondition });
      await new Promise((resolve) => setTimeout(resolve, 20));
      await cache.close();
      await refused;
    });
  });
});

/** What a format does: believes no bytes but the right ones. */
class CheckedFile implements RandomAccessFile {
  readonly label = 'checked';
  readonly sizeBytes = CONTENT.length;
  readonly #file: RandomAccessFile;

  constructor(file: RandomAccessFile) {
    this.#file = file;
  }

  readLocal(target: Uint8Array, offset: number): boolean {
    if (!this.#file.readLocal(target, offset)) return false;
    if (CONTENT.subarray(offset, offset + target.length).equals(target)) return true;
    throw corrupt(this, offset, 'not the bytes that were sent');
  }

  load(offset: number, length: number): Promise<void> {
    return this.#file.load(offset, length);
  }

  forget(offset: number, length: number): boolean {
    return this.#file.forget(offset, length);
  }

  close(): void {
    this.#file.close();
  }
}

describe('damaged bytes', () => {
  test('from the registry once are fetched again, and once', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      ranges.damage = (target) => {
        if (ranges.requests.length === 1) target.fill(0, 7, 9);
      };
      const blob = await cache.openBlob(ranges);
      await assertReads(new CheckedFile(blob), 0, 100);
      assert.equal(ranges.requests.length, 2);
    });
  });

  test('that found no room on the disk are fetched again', async () => {
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.damage = (target) => {
          if (ranges.requests.length === 1) target.fill(0, 7, 9);
        };
        await assertReads(new CheckedFile(await cache.openBlob(ranges)), 0, 100);
        assert.equal(ranges.requests.length, 2);
      },
      { capacityBytes: 0 },
    );
  });

  test('always are an error after a bounded number of requests', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      ranges.damage = (target) => target.fill(0);
      const blob = new CheckedFile(await cache.openBlob(ranges));
      await assert.rejects(read(blob, 0, 100), { code: ErrorCodes.Corrupt });
      assert.equal(ranges.requests.length, 1 + REFETCHES_MAX);
    });
  });

  test('on the disk are fetched again', async () => {
    await withCache(async (cache, directory) => {
      const ranges = new BlobDouble(CONTENT);
      const blob = await cache.openBlob(ranges);
      await assertReads(blob, 0, 4096);
      writeFileSync(blobFiles(directory)[0]!, 'damage', { flag: 'r+' });
      await assertReads(new CheckedFile(blob), 0, 4096);
      assert.equal(ranges.requests.length, 2);
    });
  });

  test('a cache file cut short under us costs a fetch', async () => {
    await withCache(async (cache, directory, faults) => {
      const blob = await cache.openBlob(new BlobDouble(CONTENT));
      await assertReads(blob, 5 * CHUNK_BYTES, 4096);
      truncateSync(blobFiles(directory)[0]!, 100);
      await assertReads(blob, 5 * CHUNK_BYTES, 4096);
      assert.equal(faults[0]?.code, ErrorCodes.Io);
    });
  });
});

describe('restarts', () => {
  test('what was cached is there again; files and folders are private', async () => {
    const directory = cacheDirectory();
    await withCache(
      async (cache) => {
        const blob = await cache.openBlob(new BlobDouble(CONTENT));
        await assertReads(blob, 0, CONTENT.length);
      },
      ROOM,
      directory,
    );
    assert.equal(statSync(join(directory, 'blobs')).mode & 0o777, 0o700);
    for (const path of blobFiles(directory)) assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(directory), ['blobs'], 'the lock is given back');
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.before = unavailable;
        const blob = await cache.openBlob(ranges);
        assert.equal(blob.cachedBytes, CONTENT.length);
        await assertReads(blob, 0, CONTENT.length);
        assert.equal(blob.fetchRequests, 0);
      },
      ROOM,
      directory,
    );
  });

  test('a blob closed and opened at once keeps what it has', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      for (let turn = 0; turn < 10; turn++) {
        const blob = await cache.openBlob(ranges);
        await assertReads(blob, 3 * turn * CHUNK_BYTES, 10);
        blob.close();
        if (turn % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      }
      const blob = await cache.openBlob(ranges);
      assert.equal(blob.cachedBytes, 10 * CHUNK_BYTES);
      assert.equal(ranges.requests.length, 10);
    });
  });

  test('a killed process loses what it had not saved, and its lock is taken over', async () => {
    const directory = cacheDirectory();
    const script = `
      import { BlockCache } from ${JSON.stringify(import.meta.resolve('./block-cache.js'))};
      import { BlobDouble, distinctBytes } from ${JSON.stringify(import.meta.resolve('../../test/support/blob-double.js'))};
      const cache = await BlockCache.open(${JSON.stringify(directory)}, { capacityBytes: 1e9 });
      const blob = await cache.openBlob(new BlobDouble(distinctBytes(${CONTENT.length})));
      await blob.load(0, 100000);
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await blob.load(1000000, 100000);
      process.kill(process.pid, 'SIGKILL');`;
    const flags = process.execArgv.filter((flag) => !flag.startsWith('--test'));
    const loader = flags.includes('--import') ? ['--import', 'tsx'] : [];
    const child = spawnSync(
      process.execPath,
      [...loader, '--input-type=module', '--eval', script],
      { encoding: 'utf8' },
    );
    assert.equal(child.signal, 'SIGKILL', child.stderr);
    await withCache(
      async (cache, _directory, faults) => {
        const blob = await cache.openBlob(new BlobDouble(CONTENT));
        assert.equal(blob.cachedBytes, 2 * CHUNK_BYTES);
        await assertReads(blob, 0, CONTENT.length);
        assert.deepEqual(faults, []);
      },
      ROOM,
      directory,
    );
  });

  test('a second process is refused', async () => {
    await withCache(async (_cache, directory) => {
      await assert.rejects(BlockCache.open(directory, ROOM), { code: ErrorCodes.Busy });
    });
  });

  const damages: ReadonlyArray<readonly [name: string, damage: (path: string) => void]> = [
    ['cut short', (path) => truncateSync(path, CONTENT.length)],
    ['too long', (path) => truncateSync(path, statSync(path).size + 1)],
    ['empty', (path) => truncateSync(path, 0)],
    [
      'without a whole slot',
      (path) => {
        const size = statSync(path).size;
        truncateSync(path, size - 8192);
        truncateSync(path, size);
        writeFileSync(path, Buffer.alloc(size, 'x'), { flag: 'r+' });
      },
    ],
  ];
  for (const [name, damage] of damages) {
    test(`a cache file that is ${name} is reported, and starts empty`, async () => {
      const directory = cacheDirectory();
      const ranges = new BlobDouble(CONTENT);
      await withCache(
        async (cache) => await assertReads(await cache.openBlob(ranges), 0, 10),
        ROOM,
        directory,
      );
      damage(blobFiles(directory)[0]!);
      await withCache(
        async (cache, _directory, faults) => {
          const blob = await cache.openBlob(ranges);
          assert.deepEqual([blob.cachedBytes, faults.length], [0, 1]);
          assert.equal(faults[0]?.code, ErrorCodes.Corrupt);
          await assertReads(blob, 0, CONTENT.length);
        },
        ROOM,
        directory,
      );
    });
  }

  test('files that are not ours are left alone', async () => {
    const directory = cacheDirectory();
    await withCache(async () => {}, ROOM, directory);
    writeFileSync(join(directory, 'blobs', 'README'), 'hands off');
    writeFileSync(join(directory, 'blobs', `${'a'.repeat(64)}.gone`), 'half removed');
    await withCache(async () => {}, ROOM, directory);
    assert.deepEqual(readdirSync(join(directory, 'blobs')), ['README']);
  });
});

describe('room', () => {
  const three = [1, 2, 3].map((seed) => distinctBytes(4 * CHUNK_BYTES, seed));

  async function fill(cache: BlockCache, content: Buffer): Promise<number> {
    const ranges = new BlobDouble(content);
    const blob = await cache.openBlob(ranges);
    assert.ok((await read(blob, 0, content.length)).equals(content));
    blob.close();
    await new Promise((resolve) => setTimeout(resolve, 30));
    return ranges.requests.length;
  }

  test('the blob used longest ago makes room, one that is open never', async () => {
    await withCache(
      async (cache, directory) => {
        const open = await cache.openBlob(new BlobDouble(three[0]!));
        await read(open, 0, open.sizeBytes);
        await fill(cache, three[1]!);
        await fill(cache, three[2]!);
        assert.equal(open.cachedBytes, open.sizeBytes);
        assert.equal(await fill(cache, three[2]!), 0, 'the newest is still there');
        assert.equal(blobFiles(directory).length, 2);
        assert.equal(await fill(cache, three[1]!), 1, 'this one had to go');
      },
      { capacityBytes: 9 * CHUNK_BYTES },
    );
  });

  test('less of it than before makes the oldest go at once', async () => {
    const directory = cacheDirectory();
    await withCache(
      async (cache) => {
        for (const content of three) await fill(cache, content);
      },
      ROOM,
      directory,
    );
    await withCache(
      async (cache) => {
        assert.equal(blobFiles(directory).length, 1);
        assert.equal(await fill(cache, three[2]!), 0);
      },
      { capacityBytes: 5 * CHUNK_BYTES },
      directory,
    );
  });

  test('none at all: everything is read all the same, and reported once', async () => {
    await withCache(
      async (cache, directory, faults) => {
        const blob = await cache.openBlob(new BlobDouble(CONTENT));
        for (let turn = 0; turn < 2; turn++) await assertReads(blob, 0, CONTENT.length);
        await Promise.all(
          Array.from({ length: 100 }, (_, i) => assertReads(blob, i * 20000 + 60000, 20000)),
        );
        assert.deepEqual(
          faults.map(({ code }) => code),
          [ErrorCodes.NoSpace],
        );
        assert.equal(blob.cachedBytes, 0);
        assert.ok(statSync(blobFiles(directory)[0]!).blocks * 512 <= 64 * 1024);
      },
      { capacityBytes: 0 },
    );
  });

  test('a read half on the disk and half in memory', async () => {
    await withCache(
      async (cache) => {
        const blob = await cache.openBlob(new BlobDouble(CONTENT));
        for (const chunk of [2, 5, 3, 4, 7, 6]) await assertReads(blob, chunk * CHUNK_BYTES, 1);
        await assertReads(blob, CHUNK_BYTES + 17, 7 * CHUNK_BYTES);
        await assertReads(blob, CHUNK_BYTES + 17, 7 * CHUNK_BYTES);
        assert.equal(blob.cachedBytes, 2 * CHUNK_BYTES);
      },
      { capacityBytes: 2 * CHUNK_BYTES },
    );
  });
});

describe('openBlob()', () => {
  test('refuses what is no digest, and two sizes of one digest', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      const wrong = { ...ranges, digest: '../../etc/passwd', readRange: ranges.readRange };
      await assert.rejects(cache.openBlob(wrong), { code: ErrorCodes.InvalidArgument });
      await cache.openBlob(ranges);
      const longer = { ...wrong, digest: ranges.digest, sizeBytes: CONTENT.length + 1 };
      await assert.rejects(cache.openBlob(longer), { code: ErrorCodes.InvalidArgument });
      const huge = { ...wrong, digest: `sha256:${'0'.repeat(64)}`, sizeBytes: 2 ** 41 };
      await assert.rejects(cache.openBlob(huge), { code: ErrorCodes.Unsupported });
    });
  });

  test('after a crash in another copy, reads right', async () => {
    await withCache(async (cache, directory) => {
      await assertReads(await cache.openBlob(new BlobDouble(CONTENT)), 0, 1000);
      const copy = crashedCopy(directory);
      await withCache(
        async (second) => {
          await assertReads(await second.openBlob(new BlobDouble(CONTENT)), 0, 1000);
        },
        ROOM,
        copy,
      );
    });
  });
});

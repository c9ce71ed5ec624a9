/**
 * Goal: sound cached chunks are there after a restart, and take no more room than the limits allow.
 * Method: real files, processes that are killed, files that are damaged, capacities that are too small.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { BlobDouble, distinctBytes, gone } from '../../test/support/blob-double.js';
import {
  blobFiles,
  cacheDirectory,
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
import { ErrorCodes, systemCode } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { BlockCache } from './block-cache.js';

after(removeCacheDirectories);

/** Uses up the descriptors of this process. @returns What closes them. */
function takeDescriptors(): () => void {
  const limit = /open files +(\d+)/.exec(readFileSync('/proc/self/limits', 'latin1'))![1]!;
  execFileSync('prlimit', ['--pid', `${process.pid}`, '--nofile=64:']);
  const taken: number[] = [];
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch (error) {
    assert.equal(systemCode(error), 'EMFILE');
  }
  return () => {
    for (const fd of taken) closeSync(fd);
    execFileSync('prlimit', ['--pid', `${process.pid}`, `--nofile=${limit}:`]);
  };
}

/** A directory with all of CONTENT in its cache. */
async function filledDirectory(): Promise<string> {
  const directory = cacheDirectory();
  await withCache(
    async (cache) => {
      const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      await assertReads(blob, 0, CONTENT.length);
    },
    ROOM,
    directory,
  );
  return directory;
}

describe('restarts', () => {
  test('keeps cached chunks over a restart; files and folders are private', async () => {
    const directory = await filledDirectory();
    assert.equal(statSync(join(directory, 'blobs')).mode & 0o777, 0o700);
    for (const path of blobFiles(directory)) assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(readFileSync(join(directory, 'lock'), 'latin1'), '', 'the lock is given back');
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.before = gone;
        const blob = await OpenBlob.open(cache, ranges);
        assert.equal(blob.cachedBytes, CONTENT.length);
        await assertReads(blob, 0, CONTENT.length);
        assert.equal(blob.fetchRequests, 0);
      },
      ROOM,
      directory,
    );
  });

  test('a blob closed and opened at once keeps its chunks', async () => {
    await withCache(async (cache) => {
      const ranges = new BlobDouble(CONTENT);
      for (let turn = 0; turn < 10; turn++) {
        const blob = await OpenBlob.open(cache, ranges);
        await assertReads(blob, 3 * turn * CHUNK_BYTES, 10);
        blob.close();
        if (turn % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
      }
      const blob = await OpenBlob.open(cache, ranges);
      assert.equal(blob.cachedBytes, 10 * CHUNK_BYTES);
      assert.equal(ranges.requests.length, 10);
    });
  });

  test('a killed process loses its unsaved chunks, and the next one gets its lock', async () => {
    const directory = cacheDirectory();
    const script = `
      import { BlockCache } from ${JSON.stringify(import.meta.resolve('./block-cache.js'))};
      import { OpenBlob } from ${JSON.stringify(import.meta.resolve('../../test/support/cache-scene.js'))};
      import { BlobDouble, distinctBytes } from ${JSON.stringify(import.meta.resolve('../../test/support/blob-double.js'))};
      const cache = await BlockCache.open(${JSON.stringify(directory)}, { capacityBytes: 1e9, reserveBytes: 0 });
      const blob = await OpenBlob.open(cache, new BlobDouble(distinctBytes(${CONTENT.length})));
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
        const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
        assert.equal(blob.cachedBytes, 2 * CHUNK_BYTES);
        await assertReads(blob, 0, CONTENT.length);
        assert.deepEqual(faults, []);
      },
      ROOM,
      directory,
    );
  });

  test('a process without descriptors cannot open a cached blob, and leaves its file', async () => {
    const directory = await filledDirectory();
    await withCache(
      async (cache, _directory, faults) => {
        const ranges = new BlobDouble(CONTENT);
        const giveBack = takeDescriptors();
        try {
          await assert.rejects(OpenBlob.open(cache, ranges), { code: ErrorCodes.Host });
        } finally {
          giveBack();
        }
        const blob = await OpenBlob.open(cache, ranges);
        assert.deepEqual([blob.cachedBytes, faults], [CONTENT.length, []]);
      },
      ROOM,
      directory,
    );
  });

  test('a second process cannot open the directory', async () => {
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
        async (cache) => await assertReads(await OpenBlob.open(cache, ranges), 0, 10),
        ROOM,
        directory,
      );
      damage(blobFiles(directory)[0]!);
      await withCache(
        async (cache, _directory, faults) => {
          const blob = await OpenBlob.open(cache, ranges);
          assert.deepEqual([blob.cachedBytes, faults.length], [0, 1]);
          assert.equal(faults[0]?.code, ErrorCodes.Corrupt);
          await assertReads(blob, 0, CONTENT.length);
        },
        ROOM,
        directory,
      );
    });
  }

  test('the cache leaves files of other names alone', async () => {
    const directory = cacheDirectory();
    await withCache(async () => {}, ROOM, directory);
    writeFileSync(join(directory, 'blobs', 'README'), 'hands off');
    const folder = join(directory, 'blobs', 'registry.example');
    mkdirSync(folder);
    writeFileSync(join(folder, 'README'), 'hands off');
    writeFileSync(join(folder, `${'a'.repeat(64)}.gone`), 'half removed');
    await withCache(async () => {}, ROOM, directory);
    assert.deepEqual(readdirSync(join(directory, 'blobs')), ['README', 'registry.example']);
    assert.deepEqual(readdirSync(folder), ['README']);
  });
});

describe('room', () => {
  const three = [1, 2, 3].map((seed) => distinctBytes(4 * CHUNK_BYTES, seed));

  async function fill(cache: BlockCache, content: Buffer): Promise<number> {
    const ranges = new BlobDouble(content);
    const blob = await OpenBlob.open(cache, ranges);
    assert.ok((await read(blob, 0, content.length)).equals(content));
    blob.close();
    await new Promise((resolve) => setTimeout(resolve, 30));
    return ranges.requests.length;
  }

  test('the least recently used blob is evicted, an open one never', async () => {
    await withCache(
      async (cache, directory) => {
        const open = await OpenBlob.open(cache, new BlobDouble(three[0]!));
        await read(open, 0, open.sizeBytes);
        await fill(cache, three[1]!);
        await fill(cache, three[2]!);
        assert.equal(open.cachedBytes, open.sizeBytes);
        assert.equal(await fill(cache, three[2]!), 0, 'the newest is still there');
        assert.equal(blobFiles(directory).length, 2);
        assert.equal(await fill(cache, three[1]!), 1, 'this one had to go');
      },
      { capacityBytes: 9 * CHUNK_BYTES, reserveBytes: 0 },
    );
  });

  test('a smaller capacity evicts the oldest blobs at once', async () => {
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
      { capacityBytes: 5 * CHUNK_BYTES, reserveBytes: 0 },
      directory,
    );
  });

  test('a capacity of 0 fails no read, and is reported once', async () => {
    await withCache(
      async (cache, directory, faults) => {
        const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
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
      { capacityBytes: 0, reserveBytes: 0 },
    );
  });

  test('one read returns chunks of the disk and of memory', async () => {
    await withCache(
      async (cache) => {
        const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
        for (const chunk of [2, 5, 3, 4, 7, 6]) await assertReads(blob, chunk * CHUNK_BYTES, 1);
        await assertReads(blob, CHUNK_BYTES + 17, 7 * CHUNK_BYTES);
        await assertReads(blob, CHUNK_BYTES + 17, 7 * CHUNK_BYTES);
        assert.equal(blob.cachedBytes, 2 * CHUNK_BYTES);
      },
      { capacityBytes: 2 * CHUNK_BYTES, reserveBytes: 0 },
    );
  });
});

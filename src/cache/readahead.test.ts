/**
 * Goal: a miss of a mounted disk brings its neighbourhood, its reader waits for its own chunks only, and a start that reads
 * most of an image gets the rest.
 * Method: a cache and a registry in memory that shows what is requested of it, in which order.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, distinctBytes, gone } from '../../test/support/blob-double.js';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { CONTENT, OpenBlob, ROOM, withCache } from '../../test/support/cache-scene.js';
import { CHUNK_BYTES, readFully } from '../io/random-access-file.js';
import { ImageReads } from './image-reads.js';

after(removeCacheDirectories);

const GRANULE = 8;
/** 32 MiB. */
const LARGE = distinctBytes(512 * CHUNK_BYTES, 3);

/** A read of a mounted disk. */
async function readMounted(
  blob: OpenBlob,
  bytes: Uint8Array,
  offset: number,
  length: number,
): Promise<void> {
  const target = Buffer.alloc(length);
  const disk = {
    label: blob.label,
    sizeBytes: blob.sizeBytes,
    readWaitMs: 10_000,
    tryRead: (into: Uint8Array, at: number) => blob.tryRead(into, at),
    load: (at: number, count: number, deadlineMs?: number) => blob.load(at, count, deadlineMs),
    invalidate: () => false,
    close: () => {},
  };
  await readFully(disk, target, offset);
  assert.ok(target.equals(bytes.subarray(offset, offset + length)), `[${offset}, +${length})`);
}

const chunksOf = ({ requests }: BlobDouble) =>
  requests.map(({ offset, length }) => [offset / CHUNK_BYTES, Math.ceil(length / CHUNK_BYTES)]);

async function openMounted(...[cache, source, image]: Parameters<typeof OpenBlob.open>) {
  const blob = await OpenBlob.open(cache, source, image);
  blob.opened();
  return blob;
}

test('a miss brings a granule from its chunk on, and a part of one before it', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    const blob = await openMounted(cache, ranges);
    for (const chunk of [300, 20, 170]) await readMounted(blob, LARGE, chunk * CHUNK_BYTES, 4096);
    await sleep(50);
    assert.deepEqual(chunksOf(ranges), [
      [297, 3 + GRANULE],
      [17, 3 + GRANULE],
      [167, 3 + GRANULE],
    ]);
  });
});

test('opening an image fetches the ranges it reads, and a small blob whole', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(CONTENT);
    const blob = await OpenBlob.open(cache, ranges);
    await blob.load(0, 4096);
    assert.deepEqual(chunksOf(ranges), [[0, 1]]);
    const small = new BlobDouble(CONTENT.subarray(0, 6 * CHUNK_BYTES + 5));
    const smallBlob = await OpenBlob.open(cache, small);
    await Promise.all([smallBlob.load(0, 4096), smallBlob.load(small.sizeBytes - 4096, 4096)]);
    assert.deepEqual(chunksOf(small), [[0, 7]]);
  });
});

test('a granule ends at a cached chunk, and joins no request of another handle', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    const blob = await openMounted(cache, ranges);
    await readMounted(blob, LARGE, 100 * CHUNK_BYTES, 1);
    await readMounted(blob, LARGE, 94 * CHUNK_BYTES, 1);
    await readMounted(blob, LARGE, 109 * CHUNK_BYTES, 1);
    assert.deepEqual(chunksOf(ranges), [
      [97, 3 + GRANULE],
      [91, 6],
      [108, 1 + GRANULE],
    ]);
    const others = new BlobDouble(LARGE);
    const other = await openMounted(cache, others);
    await Promise.all([
      readMounted(blob, LARGE, 200 * CHUNK_BYTES, 1),
      readMounted(other, LARGE, 202 * CHUNK_BYTES, 1),
      readMounted(other, LARGE, 210 * CHUNK_BYTES, 1),
    ]);
    assert.deepEqual(chunksOf(ranges).at(-1), [197, 3 + GRANULE]);
    assert.deepEqual(chunksOf(others), [[208, 2 + GRANULE]]);
  });
});

test('a read returns when its chunk has arrived, and not with the request', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    const blob = await openMounted(cache, ranges);
    let end = (): void => {};
    ranges.arriving = ({ offset }, arrived) => {
      if (offset === 0) arrived(2 * CHUNK_BYTES + 10);
      return new Promise((resolve) => {
        end = resolve;
      });
    };
    await readMounted(blob, LARGE, 0, 2 * CHUNK_BYTES);
    const third = readMounted(blob, LARGE, 2 * CHUNK_BYTES, 10);
    assert.equal(await Promise.race([third.then(() => 'read'), sleep(50, 'waiting')]), 'waiting');
    end();
    await third;
    assert.deepEqual(chunksOf(ranges), [[0, GRANULE]]);
  });
});

test('a read does not wait for neighbours that always fail', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    const blob = await openMounted(cache, ranges);
    const bad = 2 * CHUNK_BYTES;
    ranges.before = async ({ offset, length }) => {
      if (offset <= bad && bad < offset + length) await gone();
    };
    await Promise.all([
      readMounted(blob, LARGE, 0, 1),
      readMounted(blob, LARGE, 5 * CHUNK_BYTES, 1),
    ]);
  });
});

test('a sweep has a window of parallel requests, and needs few of them', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    ranges.before = () => sleep(5);
    const blob = await openMounted(cache, ranges);
    for (let at = 0; at < LARGE.length; at += 128 * 1024) {
      await readMounted(blob, LARGE, at, 128 * 1024);
    }
    assert.equal(ranges.requestedBytes, LARGE.length);
    assert.ok(ranges.parallelMax >= 2, `${ranges.parallelMax} at once`);
    assert.ok(ranges.requests.length <= 40, `${ranges.requests.length} requests`);
  });
});

test('a prefetch that fails is not retried, and fails no read', async () => {
  await withCache(async (cache) => {
    const ranges = new BlobDouble(LARGE);
    const blob = await openMounted(cache, ranges);
    let failures = 0;
    ranges.before = async () => {
      if (ranges.urgencies.at(-1) !== 'prefetch' || failures > 0) return;
      failures++;
      await gone();
    };
    for (let chunk = 0; chunk < 64; chunk++) {
      await readMounted(blob, LARGE, chunk * CHUNK_BYTES, CHUNK_BYTES);
    }
    assert.equal(failures, 1);
  });
});

test('a start that reads most of an image gets the rest in the background, others do not', async () => {
  for (const kind of ['dense', 'sparse', 'known', 'walker', 'finder'] as const) {
    await withCache(async (cache) => {
      const image = new ImageReads();
      image.isKnown = kind === 'known';
      image.isWalked = kind === 'walker' || kind === 'finder';
      let timesMost = 0;
      image.onMost = () => timesMost++;
      const others = distinctBytes(200 * CHUNK_BYTES, 7);
      const sources = [new BlobDouble(LARGE), new BlobDouble(others)];
      const [large] = await Promise.all(sources.map((source) => openMounted(cache, source, image)));
      // Granules in an order that is no sweep, read whole or in part.
      const granules = { known: 10, finder: 5 }[kind as string] ?? 40;
      for (let i = 0; i < granules; i++) {
        const first = ((i * 13) % 50) * GRANULE;
        const count = kind === 'sparse' || kind === 'walker' ? 4 : GRANULE;
        await readMounted(large!, LARGE, first * CHUNK_BYTES, count * CHUNK_BYTES);
      }
      await sleep(100);
      const background = sources.map(
        ({ urgencies }) => urgencies.filter((urgency) => urgency === 'background').length,
      );
      const streams = kind === 'dense' || kind === 'walker';
      if (streams) assert.ok(background[0]! > 0 && background[1]! > 0, `${background}`);
      else assert.deepEqual(background, [0, 0]);
      assert.equal(timesMost, streams ? 1 : 0);
      const fetched = sources.reduce((sum, { requestedBytes }) => sum + requestedBytes, 0);
      assert.ok(fetched <= LARGE.length + others.length, 'nothing is fetched twice');
    });
  }
});

test('a large file that is read in order does not bring the rest of the image', async () => {
  await withCache(async (cache) => {
    const image = new ImageReads();
    const large = distinctBytes(1024 * CHUNK_BYTES, 5);
    const others = distinctBytes(1024 * CHUNK_BYTES, 7);
    const sources = [new BlobDouble(large), new BlobDouble(others)];
    const [swept] = await Promise.all(sources.map((source) => openMounted(cache, source, image)));
    // 48 of 128 MiB.
    for (let chunk = 0; chunk < 768; chunk++) {
      await readMounted(swept!, large, chunk * CHUNK_BYTES, CHUNK_BYTES);
    }
    await sleep(100);
    const background = sources.map(
      ({ urgencies }) => urgencies.filter((urgency) => urgency === 'background').length,
    );
    // What was ordered before the window was wide.
    assert.ok(background[0] === 0 && background[1]! <= 8, `${background}`);
  });
});

test('windows and streams keep the capacity of the cache', async () => {
  await withCache(
    async (cache) => {
      const ranges = new BlobDouble(LARGE);
      const blob = await openMounted(cache, ranges, new ImageReads());
      for (let at = 0; at < LARGE.length; at += CHUNK_BYTES) {
        await readMounted(blob, LARGE, at, CHUNK_BYTES);
        assert.ok(blob.cachedBytes <= 128 * CHUNK_BYTES, `${blob.cachedBytes}`);
      }
      assert.ok(ranges.requestedBytes <= 1.3 * LARGE.length, `${ranges.requestedBytes}`);
    },
    { ...ROOM, capacityBytes: 128 * CHUNK_BYTES },
  );
});

test('a stream evicts nothing of open images', async () => {
  await withCache(
    async (cache) => {
      const bytes = distinctBytes(200 * CHUNK_BYTES, 11);
      const other = await openMounted(cache, new BlobDouble(bytes), new ImageReads());
      for (let chunk = 0; chunk < 200; chunk++) {
        await readMounted(other, bytes, chunk * CHUNK_BYTES, CHUNK_BYTES);
      }
      const ranges = new BlobDouble(LARGE);
      const dense = await openMounted(cache, ranges, new ImageReads());
      for (let i = 0; i < 30; i++) {
        const first = ((i * 13) % 50) * GRANULE;
        await readMounted(dense, LARGE, first * CHUNK_BYTES, GRANULE * CHUNK_BYTES);
      }
      await sleep(300);
      assert.ok(ranges.urgencies.includes('background'));
      assert.equal(other.cachedBytes, bytes.length);
      assert.ok(ranges.requestedBytes <= 340 * CHUNK_BYTES, `${ranges.requestedBytes}`);
    },
    { ...ROOM, capacityBytes: 540 * CHUNK_BYTES },
  );
});

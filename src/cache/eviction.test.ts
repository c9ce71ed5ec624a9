/**
 * Goal: eviction leaves what an image needs to open, as long as the cache holds anything else.
 * Method: a cache that is much smaller than its blob, swept by reads, and restarted while the registry is away.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, distinctBytes, gone } from '../../test/support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertReads, CONTENT, OpenBlob, withCache } from '../../test/support/cache-scene.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';

after(removeCacheDirectories);

const SMALL = { capacityBytes: 16 * CHUNK_BYTES, reserveBytes: 0 };
/** A round of the clock takes a second. */
const ROUND_MS = 1100;

/** Reads what an image's headers and indexes would be. */
async function readToOpen(blob: OpenBlob): Promise<void> {
  await assertReads(blob, 0, 4096);
  await assertReads(blob, 36 * CHUNK_BYTES, CONTENT.length - 36 * CHUNK_BYTES);
  blob.opened();
}

async function sweep(blob: OpenBlob): Promise<void> {
  for (let round = 0; round < 3; round++) {
    for (let i = 1; i < 12; i++) await assertReads(blob, (12 * round + i) * CHUNK_BYTES, 4096);
    await sleep(ROUND_MS);
  }
}

test('an image opens without its registry after its device has read more than the cache holds', async () => {
  const directory = cacheDirectory();
  await withCache(
    async (cache) => {
      const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
      await readToOpen(blob);
      await sweep(blob);
    },
    SMALL,
    directory,
  );
  // The second opening hits the cache, and protects its chunks again.
  for (let restart = 0; restart < 2; restart++) {
    await withCache(
      async (cache) => {
        const ranges = new BlobDouble(CONTENT);
        ranges.before = gone;
        const blob = await OpenBlob.open(cache, ranges);
        await readToOpen(blob);
        ranges.before = async () => {};
        if (restart === 0) await sweep(blob);
      },
      SMALL,
      directory,
    );
  }
});

test('opening chunks are evicted when the cache holds no others', async () => {
  await withCache(async (cache) => {
    for (let seed = 2; seed < 5; seed++) {
      const content = distinctBytes(8 * CHUNK_BYTES, seed);
      const blob = await OpenBlob.open(cache, new BlobDouble(content));
      await blob.load(0, content.length);
      blob.opened();
      await sleep(ROUND_MS);
    }
    const blob = await OpenBlob.open(cache, new BlobDouble(CONTENT));
    blob.opened();
    for (let round = 0; round < 3 && blob.cachedBytes === 0; round++) {
      await assertReads(blob, (5 + 9 * round) * CHUNK_BYTES, 4096);
      await sleep(ROUND_MS);
    }
    assert.ok(blob.cachedBytes > 0);
  }, SMALL);
});

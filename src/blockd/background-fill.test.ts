/**
 * Goal: an image that is complete stays so while its device is there, also when chunks of it are evicted. Wrong bytes are not fetched
 * without end, and a check changes nothing that fetches go by.
 * Method: a real cache, a registry's blob in memory, a clock that the test sets forward.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlobDouble, distinctBytes } from '../../test/support/blob-double.js';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { withCache } from '../../test/support/cache-scene.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { BackgroundFill } from './background-fill.js';
import { DemandWatch } from './demand-watch.js';

after(removeCacheDirectories);

const BYTES = 20 * CHUNK_BYTES;
const LATER_MS = 61_000;
const WAIT_MS_MAX = 10_000;

test('a blob that keeps failing its digest is fetched less and less often, and its source is told', async () => {
  await withCache(async (cache) => {
    const warnings: string[] = [];
    const warn = (_fields: object, message: string) => warnings.push(message);
    const fill = new BackgroundFill(cache, new DemandWatch(), undefined, { info: () => {}, warn });
    const source = new BlobDouble(distinctBytes(BYTES));
    source.damage = (target) => {
      target[0]! ^= 1;
    };
    let timesTold = 0;
    const sources = [Object.assign(source, { invalidated: () => timesTold++ })];
    fill.add({ id: 'wrong', sources, delayMs: 0, idleMs: 0, isLasting: true });
    await sleep(3_000);
    assert.equal(source.requestedBytes, 2 * BYTES);
    assert.equal(timesTold, 2);
    assert.equal(fill.progressOf('wrong')?.state, 'failing');
    await fill.close();
    assert.ok(warnings.length <= 2, `${warnings}`);
  });
});

test('the check of a complete blob is no read of it', async () => {
  await withCache(async (cache) => {
    const log = { info: () => {}, warn: () => {} };
    const fill = new BackgroundFill(cache, new DemandWatch(), undefined, log);
    const source = new BlobDouble(distinctBytes(BYTES));
    const handle = await cache.openBlob(source);
    fill.add({ id: 'd', sources: [source], delayMs: 0, idleMs: 0, isLasting: true });
    while (fill.progressOf('d')?.state !== 'complete') await sleep(5);
    assert.deepEqual([handle.fetchedCount, handle.readCount], [BYTES / CHUNK_BYTES, 0]);
    handle.close();
    await fill.close();
  });
});

for (const isLasting of [true, false]) {
  const again = isLasting ? 'is fetched again within a minute' : 'is not fetched again';
  const name = isLasting ? 'a device' : 'a prefetch';
  test(`what is evicted of the complete image of ${name} ${again}`, async (t) => {
    await withCache(async (cache) => {
      const messages: string[] = [];
      const note = (_fields: object, message: string) => messages.push(message);
      const log = { info: note, warn: note };
      const fill = new BackgroundFill(cache, new DemandWatch(), undefined, log);
      const source = new BlobDouble(distinctBytes(BYTES));
      const job = (id: string, sources = [source]) =>
        fill.add({ id, sources, delayMs: 0, idleMs: 0, isLasting });
      const complete = async (id: string) => {
        const untilMs = Date.now() + WAIT_MS_MAX;
        while (fill.progressOf(id)?.state !== 'complete') {
          assert.ok(Date.now() < untilMs, JSON.stringify(fill.progressOf(id)));
          await sleep(5);
        }
      };
      try {
        job('first');
        await complete('first');
        assert.equal(source.requestedBytes, BYTES);
        // Its blob closes a moment later.
        let freed = 0;
        for (let i = 0; freed === 0 && i < 1000; i++) {
          await sleep(5);
          freed = (await cache.prune()).freedBytes;
        }
        assert.equal(freed, BYTES);
        const now = performance.now.bind(performance);
        t.mock.method(performance, 'now', () => now() + LATER_MS);
        // One that comes wakes the fill up.
        job('other', [new BlobDouble(distinctBytes(CHUNK_BYTES, 2))]);
        await complete('other');
        await complete('first');
        assert.equal(source.requestedBytes, isLasting ? 2 * BYTES : BYTES);
        const expected = isLasting ? 3 : 2;
        assert.deepEqual(messages, Array(expected).fill('image is complete in the cache'));
      } finally {
        await fill.close();
      }
    });
  });
}

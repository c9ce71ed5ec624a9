/**
 * Goal: hot pages that this host keeps are used again, and reads are right when their file is damaged or the daemon killed.
 * Method: restarts and kills, files changed on the disk, and caches with too little room.
 */
import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, statSync, writeSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { pagesAt } from '../../src/hot-blob/hot-pages.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { blobFiles } from '../support/cache-directories.js';
import { randomOf } from '../support/changed-blobs.js';
import { PAGE_BYTES } from '../support/proved-layer.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import { addAdvice, hotBlobOf, placeImage, startImage } from '../support/start-image.js';
import { type NodeSettings, requestOf, StartNode, writeConfigOf } from '../support/start-node.js';

const SEED = Number(process.env['OBD_HOT_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const PAGES = 4096;
const START = Array.from({ length: 1200 }, (_, i) => (i * 37) % PAGES);
const FETCHED = 'hot pages fetched';
const DROPPED = 'kept hot pages dropped, the start read others';
const SET_ASIDE = 'load order set aside, reads fetch what they need';
const SKIPPED = 'cache: skipped damaged entry';
const image = startImage(PAGES, 1);
const hot = await hotBlobOf(image, START);

async function sceneOf(t: TestContext) {
  const registry = await ReferrerRegistry.start();
  t.after(() => registry.stop());
  const placed = placeImage(registry, image);
  const { hot: digest } = addAdvice(registry, placed, { hot });
  return { registry, placed, hotRequests: new RegExp(`^GET .*blobs/${digest}`) };
}

/** The file with the hot pages: the only one of that size. */
function hotFileOf(node: StartNode): string {
  const sizeBytes = pagesAt(0) + 65536 + START.length * PAGE_BYTES;
  const files = blobFiles(join(node.stateDirectory, 'cache'));
  const near = files.filter((path) => Math.abs(statSync(path).size - sizeBytes) < 65536);
  assert.equal(near.length, 1, files.join('\n'));
  return near[0]!;
}

function damage(path: string, at: number, bytes: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.alloc(bytes, 0xee), 0, bytes, at);
  closeSync(file);
}

describe('hot pages on this host', { skip: blockdUnfit, concurrency: 4 }, () => {
  test('are used by the next start, also of another daemon', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    await StartNode.with({}, async (node) => {
      const first = await node.begin(placed);
      await node.logged(FETCHED);
      await first.end();
      // Their file has no digest that its bytes could be compared with.
      for (const { registry: origin, digest } of (await node.client.cache()).blobs) {
        assert.equal((await node.client.verifyCache(origin, digest)).droppedBytes, 0);
      }
      await node.goDown();
      await node.comeUp();
      const second = await node.begin(placed);
      await second.readPages(START);
      assert.ok((await second.state()).hotPagesRead >= START.length);
      await second.readAll();
      await second.end();
      assert.deepEqual(node.warnings(), []);
    });
    assert.equal(registry.count(hotRequests), 1);
  });

  test('that a start hardly reads make way for what is published', async (t) => {
    const { registry, placed } = await sceneOf(t);
    const others = Array.from({ length: 1500 }, (_, i) => (i * 37 + 37 * 1200) % PAGES);
    await StartNode.with({}, async (node) => {
      const first = await node.begin(placed);
      await node.logged(FETCHED);
      await first.end();
      registry.manifests.clear();
      const { hot: better } = addAdvice(registry, placed, { hot: await hotBlobOf(image, others) });
      const second = await node.begin(placed);
      await second.readPages(others);
      await node.logged(DROPPED);
      await second.readPages(START);
      await second.end();
      const third = await node.begin(placed);
      assert.equal((await node.logged(FETCHED, 2))['digest'], better);
      await third.readPages(others);
      // The layers have them, too: a page that the disk has not read yet comes from there.
      assert.ok((await third.state()).hotPagesRead > others.length / 2);
      await third.readAll();
      await third.end();
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('are not looked for where the configuration says so', async (t) => {
    const { registry, placed } = await sceneOf(t);
    await StartNode.with({ uses: false }, async (node) => {
      const started = await node.begin(placed);
      await started.readAll();
      assert.equal((await started.state()).hotPages, 0);
      await started.end();
    });
    assert.equal(registry.count(/referrers|manifests/), 0);
  });

  test('take the place of what versions before have left', async () => {
    const node = await StartNode.start();
    try {
      await node.goDown();
      const traces = join(node.stateDirectory, 'traces');
      await mkdir(traces);
      await writeFile(join(traces, 'old.trace'), 'x');
      await node.comeUp();
      assert.equal(existsSync(traces), false);
    } finally {
      await node.stop();
    }
  });

  test('with a damaged index are fetched again, once', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    await StartNode.with({}, async (node) => {
      const first = await node.begin(placed);
      await node.logged(FETCHED);
      await first.end();
      await node.goDown();
      damage(hotFileOf(node), 40, 200);
      for (const requests of [2, 2]) {
        await node.comeUp();
        const started = await node.begin(placed);
        await node.logged(FETCHED, requests);
        assert.equal(registry.count(hotRequests), requests);
        await started.readPages(START);
        assert.ok((await started.state()).hotPagesRead >= START.length);
        await started.readAll();
        await started.end();
        await node.goDown();
      }
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('that are damaged come from the layers', async (t) => {
    const { placed } = await sceneOf(t);
    await StartNode.with({}, async (node) => {
      const first = await node.begin(placed);
      await node.logged(FETCHED);
      await first.end();
      await node.goDown();
      damage(hotFileOf(node), 65536 + 10 * PAGE_BYTES, 400_000);
      await node.comeUp();
      const started = await node.begin(placed);
      await started.readPages(START);
      await started.readAll();
      await started.end();
      assert.deepEqual([...new Set(node.warnings())], [SKIPPED]);
    });
  });

  test('are right after the daemon was killed while they came', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.faults.push({ of: hotRequests, answer: { stallAt: Math.floor(hot.length / 2) } });
    const daemon = await BlockdProcess.start('transport = "fuse"\n');
    try {
      const config = join(daemon.directory, 'd.json');
      await writeConfigOf(placed, config);
      await daemon.client.expect(requestOf(placed));
      const { path } = await daemon.client.attach('d', config);
      // Some of the hot pages, and nothing else.
      const reading = readFile(path);
      await daemon.end('SIGKILL');
      await daemon.restart();
      assert.ok((await reading).equals(image.disk), 'what was read across the kill');
      assert.ok((await readFile(path)).equals(image.disk), 'what was read after it');
      assert.equal((await daemon.client.attach('d', config)).state, 'attached');
      await daemon.client.detach('d');
      await daemon.client.expect(requestOf(placed));
      // Other tests take and leave devices, so it may get another path.
      const again = await daemon.client.attach('d', config);
      assert.ok((await readFile(again.path)).equals(image.disk), 'what another start reads');
      await daemon.client.detach('d');
    } catch (error) {
      await daemon.end('SIGTERM');
      throw error;
    }
    await daemon.stop();
  });

  const ROOMS: Readonly<Record<string, NodeSettings>> = {
    'without a cache': { cacheBytes: 0 },
    'in a cache of 1 MiB': { cacheBytes: 1 << 20 },
    'on a full disk': { reserveBytes: Number.MAX_SAFE_INTEGER },
  };
  for (const [where, settings] of Object.entries(ROOMS)) {
    test(`${where} are set aside, and the start is right`, async (t) => {
      const { placed } = await sceneOf(t);
      await StartNode.with(settings, async (node) => {
        const started = await node.begin(placed);
        await node.logged(SET_ASIDE);
        await started.readPages(START.slice(0, 100));
        await started.readAll();
        await started.end();
        assert.equal(node.warnings().filter((msg) => msg === SET_ASIDE).length, 1);
      });
    });
  }

  test(`are right while they are evicted (seed ${SEED})`, async (t) => {
    const { registry, placed } = await sceneOf(t);
    const other = placeImage(registry, startImage(PAGES, 2), 'team/other');
    const random = randomOf(SEED);
    // The hot pages have 4.7 MiB, and the layers of both images 20 MiB.
    await StartNode.with({ cacheBytes: 8 << 20 }, async (node) => {
      const started = await node.begin(placed);
      await node.logged(FETCHED);
      const crowding = await node.attach(other);
      for (let round = 0; round < 3; round++) {
        const pages = Array.from({ length: 300 }, () => random(PAGES));
        await Promise.all([
          crowding.readAll(),
          started.readPages([...START.slice(0, 300), ...pages]),
        ]);
      }
      await started.readAll();
      await started.end();
      await crowding.end();
      // The random pages make it another start than the one whose pages these are.
      assert.deepEqual(
        node.warnings().filter((msg) => msg !== SKIPPED),
        [SET_ASIDE],
      );
    });
  });
});

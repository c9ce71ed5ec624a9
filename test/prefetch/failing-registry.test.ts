/**
 * Goal: a start waits for nothing that is only advice: a list of artifacts or a hot blob that is slow, refused or broken off costs
 * a second at the begin and a fraction of one later, and every byte is right.
 * Method: a registry that fails on request, and reads that are timed one by one, and compared with those of a start without advice.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { READ_AHEAD_KIB } from '../../src/blockdev/read-ahead.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import {
  addAdvice,
  hotBlobOf,
  type PlacedImage,
  placeImage,
  startImage,
} from '../support/start-image.js';
import { StartNode } from '../support/start-node.js';

const PAGES = 4096;
/** More than 1 MiB when compressed; the client checks a smaller blob before it passes on a byte. */
const HOT = Array.from({ length: 1500 }, (_, i) => (i * 37) % PAGES);
/** Pages around the middle of the hot blob. */
const START = HOT.slice(650, 850);
const FETCHED = 'hot pages fetched';
const SET_ASIDE = 'load order set aside, reads fetch what they need';
/** Of the daemon: how long after the pull a device waits for an index, and a read for pages that are due. */
const HOT_WAIT_MS = 1_000;
const WAIT_MS_MAX = 250;
/** This machine is shared. */
const NOISE_MS = 1_500;
const LISTS = /^GET .*(referrers|manifests\/sha256-)/;

const image = startImage(PAGES, 1);
const hot = await hotBlobOf(image, HOT);

interface Scene {
  readonly registry: ReferrerRegistry;
  readonly placed: PlacedImage;
  /** The digest of the hot blob. */
  readonly digest: string;
  /** Matches requests for it. */
  readonly hotRequests: RegExp;
}

async function sceneOf(t: TestContext): Promise<Scene> {
  const registry = await ReferrerRegistry.start();
  t.after(() => registry.stop());
  const placed = placeImage(registry, image);
  const { hot: digest } = addAdvice(registry, placed, { hot });
  return { registry, placed, digest, hotRequests: new RegExp(`^GET .*blobs/${digest}`) };
}

interface Times {
  readonly attachMs: number;
  readonly readsMs: number;
  readonly slowestMs: number;
}

/** Begins a start, and reads its pages. */
async function timed(node: StartNode, placed: PlacedImage): Promise<Times> {
  const beganMs = performance.now();
  const started = await node.begin(placed);
  const attachMs = performance.now() - beganMs;
  const each = await started.readPages(START);
  await started.readAll();
  await started.end();
  const readsMs = each.reduce((sum, ms) => sum + ms, 0);
  return { attachMs, readsMs, slowestMs: Math.max(...each) };
}

/** These starts begin in the middle of the blob, so what they read first may come too late: it may be set aside for that. */
function otherWarnings(node: StartNode): string[] {
  return node.warnings().filter((msg) => msg !== SET_ASIDE);
}

/** A start of which nothing is known. */
async function withoutAdvice(): Promise<Times> {
  const registry = await ReferrerRegistry.start();
  const placed = placeImage(registry, image);
  let times: Times | undefined;
  await StartNode.with({}, async (node) => {
    times = await timed(node, placed);
  });
  await registry.stop();
  return times!;
}

function shown({ attachMs, readsMs, slowestMs }: Times): string {
  return `${[attachMs, readsMs, slowestMs].map(Math.round).join(' + ')} ms`;
}

describe('a list of artifacts', { skip: blockdUnfit, concurrency: 4 }, () => {
  test('that is missing is none', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.hasReferrers = false;
    await StartNode.with({}, async (node) => {
      await timed(node, placed);
      assert.deepEqual(otherWarnings(node), []);
    });
    assert.equal(registry.count(hotRequests), 0);
  });

  test('that needs a token is read with one', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.needsToken = true;
    await StartNode.with({}, async (node) => {
      await node.expect(placed);
      await node.logged(FETCHED);
      await timed(node, placed);
      assert.deepEqual(otherWarnings(node), []);
    });
    assert.ok(registry.count(hotRequests) <= 2);
  });

  for (const status of [401, 403, 429, 500]) {
    test(`that is answered with ${status} is none`, async (t) => {
      const { registry, placed } = await sceneOf(t);
      for (let i = 0; i < 9; i++) registry.faults.push({ of: LISTS, answer: { status } });
      await StartNode.with({}, async (node) => {
        await timed(node, placed);
        assert.deepEqual(otherWarnings(node), []);
      });
    });
  }

  test('that is a page of HTML, or of endless text, is none', async (t) => {
    const { registry, placed } = await sceneOf(t);
    for (const body of ['<html>', '<html>', 'x'.repeat(32 << 20), 'x'.repeat(32 << 20)]) {
      registry.faults.push({ of: LISTS, answer: { status: 200, body } });
    }
    await StartNode.with({}, async (node) => {
      await timed(node, placed);
      assert.deepEqual(otherWarnings(node), []);
    });
  });

  test('that has pages is read to the end', async (t) => {
    const { registry, placed, digest } = await sceneOf(t);
    const artifacts = [...registry.manifests];
    registry.manifests.clear();
    for (const name of ['one', 'two']) {
      const annotations = { 'dev.obd-ts.load-order.name': name };
      addAdvice(registry, placed, { hot: 'none', annotations });
    }
    for (const [name, stored] of artifacts) registry.manifests.set(name, stored);
    registry.pageSize = 1;
    await StartNode.with({}, async (node) => {
      await node.expect(placed);
      assert.equal((await node.logged(FETCHED))['digest'], digest);
    });
  });

  test('that never comes delays a start by a second after the pull, and no later one', async (t) => {
    const { registry, placed } = await sceneOf(t);
    for (let i = 0; i < 9; i++) registry.faults.push({ of: LISTS, answer: 'silence' });
    await StartNode.with({}, async (node) => {
      const times = await timed(node, placed);
      t.diagnostic(`at the pull: ${shown(times)}`);
      assert.ok(times.attachMs < HOT_WAIT_MS + NOISE_MS, shown(times));
      assert.ok(times.slowestMs < NOISE_MS, shown(times));
      await node.expect(placed);
      await sleep(HOT_WAIT_MS);
      const later = await timed(node, placed);
      t.diagnostic(`a second later: ${shown(later)}`);
      assert.ok(later.attachMs < NOISE_MS, shown(later));
      assert.deepEqual(otherWarnings(node), []);
    });
  });
});

describe('a hot blob', { skip: blockdUnfit, concurrency: 4 }, () => {
  test('that breaks off is continued there', async (t) => {
    const { registry, placed, digest, hotRequests } = await sceneOf(t);
    const cuts = [Math.floor(hot.length / 3), 100_000, 1];
    for (const cutAt of cuts) registry.faults.push({ of: hotRequests, answer: { cutAt } });
    await StartNode.with({}, async (node) => {
      await node.expect(placed);
      await node.logged(FETCHED);
      await timed(node, placed);
      assert.deepEqual(otherWarnings(node), []);
    });
    const parts = registry.served.filter((part) => part.digest === digest);
    const sent = parts.reduce((sum, part) => sum + part.sent, 0);
    // The end of a connection loses what is on its way.
    assert.ok(sent < hot.length + 100_000, `${sent} bytes of ${hot.length}`);
    assert.ok(parts.slice(1).every(({ first }) => first > 0));
    assert.equal(parts.length, 4);
  });

  test('that breaks off for good is set aside, and the rest comes from the layers', async (t) => {
    const { registry, placed, digest, hotRequests } = await sceneOf(t);
    const cutAt = Math.floor(hot.length / 2);
    registry.faults.push({ of: hotRequests, answer: { cutAt } });
    for (let i = 0; i < 9; i++) registry.faults.push({ of: hotRequests, answer: { status: 404 } });
    await StartNode.with({}, async (node) => {
      const started = await node.begin(placed);
      const { err } = await node.logged(SET_ASIDE);
      assert.match(JSON.stringify(err), new RegExp(digest), 'the cause is named');
      const readAhead = `/sys/block/${basename(started.path)}/queue/read_ahead_kb`;
      while (Number(await readFile(readAhead, 'utf8')) !== READ_AHEAD_KIB) await sleep(20);
      await started.readPages(HOT);
      const { hotPagesRead } = await started.state();
      assert.ok(hotPagesRead > 0 && hotPagesRead < HOT.length, `${hotPagesRead} pages`);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), [SET_ASIDE]);
    });
  });

  test('of one byte a second holds no read up', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.faults.push({ of: hotRequests, answer: { dripMs: 1_000 } });
    const without = await withoutAdvice();
    await StartNode.with({}, async (node) => {
      const times = await timed(node, placed);
      t.diagnostic(`${shown(times)}, without advice ${shown(without)}`);
      assert.ok(times.attachMs < without.attachMs + HOT_WAIT_MS + NOISE_MS, shown(times));
      assert.ok(times.readsMs < 2 * without.readsMs + NOISE_MS, shown(times));
      assert.deepEqual(otherWarnings(node), []);
    });
  });

  test('that stops after a half holds up one read', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.faults.push({ of: hotRequests, answer: { stallAt: Math.floor(hot.length / 2) } });
    const without = await withoutAdvice();
    await StartNode.with({}, async (node) => {
      const times = await timed(node, placed);
      t.diagnostic(`${shown(times)}, without advice ${shown(without)}`);
      assert.ok(times.slowestMs < WAIT_MS_MAX + NOISE_MS, shown(times));
      // Each of the hundred pages that are missing would wait otherwise: 25 s.
      assert.ok(times.readsMs < 2 * without.readsMs + 2 * WAIT_MS_MAX + NOISE_MS, shown(times));
      // Reads have to fetch what it does not bring.
      assert.deepEqual(node.warnings(), [SET_ASIDE]);
    });
  });

  test('whose device goes is given up, and the next start fetches it again', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    registry.faults.push({ of: hotRequests, answer: { stallAt: Math.floor(hot.length / 2) } });
    await StartNode.with({}, async (node) => {
      await timed(node, placed);
      assert.equal(registry.count(hotRequests), 1);
      const second = await node.begin(placed);
      await node.logged(FETCHED);
      assert.equal(registry.count(hotRequests), 2);
      await second.readPages(START);
      assert.ok((await second.state()).hotPagesRead >= START.length);
      await second.readAll();
      await second.end();
      // Reads have to fetch what it does not bring.
      assert.deepEqual(node.warnings(), [SET_ASIDE]);
    });
  });

  test('is fetched once for forty starts at once', async (t) => {
    const { registry, placed, hotRequests } = await sceneOf(t);
    await StartNode.with({}, async (node) => {
      const starts = Array.from({ length: 40 }, async () => await node.begin(placed));
      const devices = await Promise.all(starts);
      await Promise.all(devices.map(async (device) => await device.readPages(START)));
      await devices[0]!.readAll();
      const { hotPagesRead } = await devices[39]!.state();
      assert.ok(hotPagesRead >= START.length, `${hotPagesRead} pages`);
      await Promise.all(devices.map(async (device) => await device.end()));
      assert.deepEqual(otherWarnings(node), []);
    });
    assert.equal(registry.count(hotRequests), 1);
    assert.ok(registry.count(LISTS) <= 2);
  });
});

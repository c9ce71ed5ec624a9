/**
 * Goal: a node fetches what another one has recorded ahead of its own start, by few requests, and reads right.
 * Method: nodes with empty caches and one registry, with the referrers API or without it; the registry counts its requests.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readAheadKib } from '../../src/blockdev/read-ahead.js';
import { sha256Of } from '../../src/oci/digest.js';
import { OCI_MANIFEST } from '../../src/oci/media-types.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { PrivateRegistry, registryUnfit } from '../support/private-registry.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import {
  type Advice,
  addAdvice,
  CONFIG,
  hotBlobOf,
  manifestOf,
  orderOfPages,
  type PlacedImage,
  placeImage,
  type StartImage,
  startImage,
} from '../support/start-image.js';
import { StartNode } from '../support/start-node.js';

const PAGES = 2048;
/** The pages that a start reads, in its order: of both layers, far from each other. */
const START = [1500, 3, 700, 1503, 1504, 1505, 64, 65, 66, 67, 2046, 1200, 9, 1024, 1026, 1027];
/** The recorder ends after 10 s without a read. */
const RECORDED_MS_MAX = 12_500;
const STOP_MS_MAX = 5_000;
const FETCHED = 'hot pages fetched';
const SET_ASIDE = 'load order set aside, reads fetch what they need';
const PUBLISHED = 'load order published';
const REFUSED = 'load order not published; this repository is left alone for a day';

/** A start on a new node that publishes what was read. @returns The node's line about it. */
async function publish(
  image: PlacedImage,
  pages: readonly number[],
  warnings: readonly string[] = [],
): Promise<number> {
  let published = 0;
  await StartNode.with({ publishes: true }, async (node) => {
    const started = await node.begin(image);
    await started.readPages(pages);
    published = Number((await node.logged(PUBLISHED))['starts']);
    assert.deepEqual(node.warnings(), warnings);
    await started.end();
  });
  return published;
}

/** The blobs that a registry was asked for since `from`, layers as `layer`. */
function askedFor(registry: ReferrerRegistry, { layers }: StartImage, from = 0): string[] {
  const digests = new Set(layers.map(({ digest }) => digest));
  return registry.served.slice(from).map(({ digest }) => (digests.has(digest) ? 'layer' : digest));
}

describe('a start that another node has published', {
  skip: blockdUnfit,
  concurrency: true,
}, () => {
  test('is fetched by one request, and its pages by no other', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 1));
    assert.equal(await publish(image, START), 1);
    const [before, servedBefore] = [registry.requests.length, registry.served.length];
    await StartNode.with({}, async (node) => {
      await node.expect(image);
      const { digest } = await node.logged(FETCHED);
      const finding = registry.requests.slice(before).filter((line) => !/blobs/.test(line));
      assert.ok(finding.length <= 2, finding.join('\n'));
      assert.deepEqual(askedFor(registry, image, servedBefore), [digest]);
      const started = await node.attach(image);
      const opened = registry.served.length;
      await started.readPages(START);
      assert.equal(registry.served.length, opened, 'a hot page was fetched again');
      assert.ok((await started.state()).hotPagesRead >= START.length);
      await started.readAll();
      const device = await readFile(started.path);
      assert.ok(device.equals(image.disk), 'the device is not its image');
      assert.deepEqual(
        askedFor(registry, image, servedBefore).filter((what) => what !== 'layer'),
        [digest],
      );
      assert.deepEqual(node.warnings(), []);
      await started.end();
    });
  });

  test('is made more exact by a second node, which reads ahead less, for a third', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 2));
    assert.equal(await publish(image, START), 1);
    const more = [...START, 300, 301];
    // It replaces the first one: docs/formats/load-order.md.
    assert.equal(await publish(image, more), 1);
    const artifacts = [...registry.manifests.values()].filter(({ bytes }) =>
      bytes.includes('dev.obd-ts.hot-pages'),
    );
    assert.equal(artifacts.length, 1, 'earlier ones are deleted');
    await StartNode.with({}, async (node) => {
      const started = await node.begin(image);
      const { pages } = await node.logged(FETCHED);
      // Besides the pages read there are headers and indexes of the layers, and what the kernel looks at.
      assert.ok(Number(pages) < 3 * more.length, `${pages} pages`);
      const { length } = registry.served;
      await started.readPages(more);
      assert.equal(registry.served.length, length);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('is left alone by the fourth node', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 9));
    const order = {
      ...orderOfPages(image, START),
      starts: 2,
      readAheadBytes: readAheadKib(true) * 1024,
    };
    addAdvice(registry, image, { order, hot: await hotBlobOf(image, START) });
    assert.equal(await publish(image, START), 3);
    const puts = registry.count(/^PUT/);
    await StartNode.with({ publishes: true }, async (node) => {
      const started = await node.begin(image);
      await node.logged(FETCHED);
      await started.readPages(START);
      await sleep(RECORDED_MS_MAX);
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
    assert.equal(registry.count(/^PUT/), puts);
  });

  test('is found by the tag where the registry has no referrers API', {
    skip: registryUnfit,
  }, async (t) => {
    const registry = await PrivateRegistry.start();
    t.after(() => registry.stop());
    const own = startImage(PAGES, 3);
    for (const blob of [CONFIG, ...own.layers.map((layer) => layer.blob)]) {
      await registry.push('team/app', blob);
    }
    const bytes = manifestOf(own);
    const url = `http://${registry.host}/v2/team/app/manifests/latest`;
    const headers = { 'content-type': OCI_MANIFEST };
    const put = await fetch(url, { method: 'PUT', headers, body: new Uint8Array(bytes) });
    assert.equal(put.status, 201);
    const manifest = { digest: sha256Of(bytes), size: bytes.length };
    const image = { ...own, host: registry.host, repository: 'team/app', manifest };
    assert.equal(await publish(image, START), 1);
    await StartNode.with({}, async (node) => {
      const seen = (await readFile(`${registry.directory}/log`, 'utf8')).length;
      await node.expect(image);
      const { digest } = await node.logged(FETCHED);
      const log = (await readFile(`${registry.directory}/log`, 'utf8')).slice(seen);
      const requests = log
        .split('\n')
        .flatMap((line) => /"([A-Z]+ [^ ]+) HTTP/.exec(line)?.[1] ?? []);
      assert.equal(requests.filter((line) => line.includes(String(digest))).length, 1);
      assert.ok(requests.filter((line) => !line.includes('/blobs/')).length <= 2);
      const started = await node.attach(image);
      await started.readPages(START);
      assert.ok((await started.state()).hotPagesRead >= START.length);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('is published once by two nodes at once, and is whole', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 4));
    await Promise.all([publish(image, START), publish(image, START)]);
    await StartNode.with({}, async (node) => {
      const started = await node.begin(image);
      await node.logged(FETCHED);
      await started.readAll();
      assert.ok((await started.state()).hotPagesRead >= START.length);
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('is not published where the registry refuses, which is asked once', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 5));
    const other = placeImage(registry, startImage(PAGES, 6));
    const answer = { status: 403 };
    for (let i = 0; i < 100; i++) registry.faults.push({ of: /^(POST|PUT) /, answer });
    await StartNode.with({ publishes: true }, async (node) => {
      const first = await node.begin(image);
      await first.readPages(START);
      await node.logged(REFUSED);
      const pushes = registry.count(/^(POST|PUT) /);
      assert.ok(pushes >= 1 && pushes <= 2, `${pushes} pushes`);
      const second = await node.begin(other);
      await second.readPages(START);
      await second.readAll();
      await second.end();
      await first.end();
      assert.equal(registry.count(/^(POST|PUT) /), pushes, 'it was asked again');
      assert.deepEqual(node.warnings(), [REFUSED]);
    });
  });

  test('that a short-lived device has begun is no refusal of the registry', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 7));
    await StartNode.with({ publishes: true }, async (node) => {
      const short = await node.begin(image);
      await short.readPages(START);
      await short.end();
      const long = await node.begin(image);
      await long.readPages(START);
      await node.logged(PUBLISHED);
      assert.deepEqual(node.warnings(), []);
      await long.end();
    });
  });

  test('is corrected once where many starts are said to have read other pages', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 13));
    const others = Array.from({ length: 600 }, (_, i) => 100 + 2 * i);
    const claimed = orderOfPages(image, others);
    const runs = claimed.runs.map((run) => ({ ...run, starts: 1000 }));
    const order = { ...claimed, runs, starts: 1000 };
    addAdvice(registry, image, { order, hot: await hotBlobOf(image, others) });
    await StartNode.with({ publishes: true }, async (node) => {
      const first = await node.begin(image);
      await first.readPages(START);
      assert.equal((await node.logged(PUBLISHED))['starts'], 2);
      await first.end();
      for (const [name, { bytes }] of registry.manifests) {
        if (bytes.includes('dev.obd-ts.hot-pages')) registry.manifests.delete(name);
      }
      addAdvice(registry, image, { order, hot: await hotBlobOf(image, others) });
      const puts = registry.count(/^PUT/);
      const second = await node.begin(image);
      await second.readPages(START);
      await sleep(RECORDED_MS_MAX);
      await second.end();
      assert.equal(registry.count(/^PUT/), puts);
      assert.deepEqual(node.warnings(), [SET_ASIDE]);
    });
  });

  test('is published again where its hot blob does not prove itself', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 14));
    const order = {
      ...orderOfPages(image, START),
      starts: 3,
      readAheadBytes: readAheadKib(true) * 1024,
    };
    addAdvice(registry, image, { order, hot: Buffer.alloc(5000, 'x') });
    assert.equal(await publish(image, START, [SET_ASIDE]), 4);
  });

  const IN_THE_WAY: Readonly<Record<string, (image: PlacedImage) => Advice>> = {
    'a damaged one': () => ({ order: Buffer.from('{"version": 1') }),
    'one that is gone': () => ({ order: `sha256:${'0'.repeat(64)}@500` }),
    'one of another image': () => ({
      order: { ...orderOfPages(startImage(PAGES, 20), START), starts: 1000 },
    }),
  };
  for (const [what, adviceOf] of Object.entries(IN_THE_WAY)) {
    test(`replaces ${what}`, async (t) => {
      const registry = await ReferrerRegistry.start();
      t.after(() => registry.stop());
      const image = placeImage(registry, startImage(PAGES, 11));
      addAdvice(registry, image, adviceOf(image));
      await StartNode.with({ publishes: true }, async (node) => {
        const started = await node.begin(image);
        await started.readPages(START);
        assert.equal((await node.logged(PUBLISHED))['starts'], 1);
        await started.end();
      });
      const artifacts = [...registry.manifests.values()].filter(({ bytes }) =>
        bytes.includes('dev.obd-ts.load-order"'),
      );
      assert.equal(artifacts.length, 1);
    });
  }

  test('that is being published keeps no daemon from stopping', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const image = placeImage(registry, startImage(PAGES, 12));
    for (let i = 0; i < 9; i++) {
      registry.faults.push({ of: /^(HEAD|POST|PUT) /, answer: 'silence' });
    }
    await StartNode.with({ publishes: true }, async (node) => {
      const started = await node.begin(image);
      await started.readPages(START);
      while (registry.count(/^(HEAD|POST|PUT) /) === 0) await sleep(50);
      await started.end();
      const beganMs = performance.now();
      await node.goDown();
      const tookMs = performance.now() - beganMs;
      assert.ok(tookMs < STOP_MS_MAX, `${tookMs} ms`);
    });
  });

  test('has its pages where the image has a layer twice', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const { disk, layers } = startImage(PAGES, 8);
    const image = placeImage(registry, { disk, layers: [...layers, layers[1]!] });
    await publish(image, START);
    await StartNode.with({}, async (node) => {
      const started = await node.begin(image);
      await node.logged(FETCHED);
      await started.readPages(START);
      assert.ok((await started.state()).hotPagesRead >= START.length);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });

  test('has its chunks where nothing proves the pages', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const { disk, layers } = startImage(PAGES, 10);
    const bare = layers.map((layer) => ({ ...layer, hashTree: undefined }));
    const image = placeImage(registry, { disk, layers: bare });
    await publish(image, START);
    await StartNode.with({}, async (node) => {
      const started = await node.begin(image);
      await node.logged('load order replayed');
      const { length } = registry.served;
      await started.readPages(START);
      assert.equal(registry.served.length, length);
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), []);
    });
  });
});

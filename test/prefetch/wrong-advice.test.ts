/**
 * Goal: no load order and no hot blob that is published for an image makes a start fail or read a wrong byte; each that is wrong is
 * set aside with one warning and a bounded number of bytes.
 * Method: artifacts with right digests, as anyone can add who may push to the repository; a registry that counts what it sends.
 */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { HOT_BLOB_BYTES_MAX } from '../../src/hot-blob/hot-index.js';
import { KeptOrders } from '../../src/load-order/kept-orders.js';
import {
  CHUNKS_MAX,
  DOCUMENT_BYTES_MAX,
  encodeLoadOrder,
} from '../../src/load-order/load-order.js';
import { sha256Of } from '../../src/oci/digest.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { ReferrerRegistry } from '../support/referrer-registry.js';
import {
  type Advice,
  addAdvice,
  hotBlobOf,
  orderOfChunks,
  orderOfPages,
  placeImage,
  startImage,
} from '../support/start-image.js';
import { StartNode } from '../support/start-node.js';

const PAGES = 1024;
const HOT = [900, 2, 500, 501, 502, 503, 903, 904];
const SET_ASIDE = 'load order set aside, reads fetch what they need';
const KIB = 1024;

const image = startImage(PAGES, 1);
const other = startImage(PAGES, 2);
const hot = await hotBlobOf(image, HOT);
const foreign = await hotBlobOf(other, HOT);
const content = zstdDecompressSync(hot);
const document = encodeLoadOrder(orderOfPages(image, HOT));
const json = (change: object) =>
  Buffer.from(JSON.stringify({ ...JSON.parse(document.toString()), ...change }));
/** The content's last byte is of a page. */
const changed = Buffer.from(content);
changed[changed.length - 100]! ^= 1;
const noise = Buffer.alloc(hot.length, 'no zstd');
const unread = `sha256:${'0'.repeat(64)}`;

interface Wrong {
  readonly advice: Advice;
  /** Bytes of advice that may be sent in vain. */
  readonly bytesMax: number;
  readonly warnings: number;
}

const whole = (
  advice: Advice & { readonly hot?: Uint8Array; readonly order?: Uint8Array },
): Wrong => {
  return { advice, bytesMax: (advice.hot ?? advice.order)!.length, warnings: 1 };
};

const WRONG: Readonly<Record<string, Wrong>> = {
  'a hot blob that is no zstd': whole({ hot: noise }),
  'a hot blob that is empty': whole({ hot: zstdCompressSync(Buffer.alloc(0)) }),
  'a hot blob that is cut': whole({ hot: hot.subarray(0, hot.length - 200) }),
  'a hot blob that ends in its index': whole({ hot: hot.subarray(0, 40) }),
  'a hot blob with a changed page': whole({ hot: zstdCompressSync(changed) }),
  // Its pages are proved, and what follows them is not read.
  'a hot blob with bytes behind its end': {
    ...whole({ hot: Buffer.concat([hot, noise]) }),
    warnings: 0,
  },
  'a hot blob with content behind its end': {
    ...whole({ hot: zstdCompressSync(Buffer.concat([content, Buffer.alloc(64 << 20)])) }),
    warnings: 0,
  },
  'a hot blob of another image': whole({ hot: foreign }),
  'a hot blob that expands without end': whole({ hot: zstdCompressSync(Buffer.alloc(256 << 20)) }),
  'a hot blob that is longer than named': {
    advice: { hot: `${sha256Of(hot)}@100` },
    bytesMax: hot.length,
    warnings: 1,
  },
  'a hot blob that is larger than any': {
    advice: { hot: `${sha256Of(hot)}@${HOT_BLOB_BYTES_MAX + 1}` },
    bytesMax: 0,
    warnings: 1,
  },
  'a hot blob that is absent': { advice: { hot: `${unread}@5000` }, bytesMax: 0, warnings: 1 },
  'a hot blob whose name is none': { advice: { hot: 'sha256:xyz@5' }, bytesMax: 0, warnings: 0 },
  'a load order that is no JSON': whole({ order: noise }),
  'a load order that is cut': whole({ order: document.subarray(0, 300) }),
  'a load order that contradicts itself': whole({ order: json({ starts: 0 }) }),
  'a load order with a page twice': whole({
    order: json({ runs: [0, 5, 3, 0, 1, 0, 6, 1, 0, 1] }),
  }),
  'a load order of too many chunks': whole({ order: json({ chunks: [0, 0, CHUNKS_MAX + 1] }) }),
  'a load order of a later version': whole({ order: json({ version: 2 }) }),
  'a load order that is larger than any': {
    advice: { order: `${sha256Of(document)}@${DOCUMENT_BYTES_MAX + 1}` },
    bytesMax: 0,
    warnings: 1,
  },
  'a load order that is longer than named': {
    advice: { order: `${sha256Of(document)}@100` },
    bytesMax: document.length,
    warnings: 1,
  },
  'a load order that is absent': { advice: { order: `${unread}@500` }, bytesMax: 0, warnings: 1 },
  'a load order of another image': {
    advice: { order: orderOfChunks(other, [0, 3, 1, 4]) },
    bytesMax: 2 * KIB,
    warnings: 1,
  },
  'a load order of chunks behind the end': {
    advice: { order: orderOfChunks(image, [0, 100_000, 1, 4_000_000_000]) },
    bytesMax: 2 * KIB,
    warnings: 0,
  },
  'a hot blob and a load order that are both wrong': {
    advice: { hot: noise, order: noise },
    bytesMax: 2 * noise.length,
    warnings: 1,
  },
};

describe('a start with', { skip: blockdUnfit, concurrency: 4 }, () => {
  for (const [what, { advice, bytesMax, warnings }] of Object.entries(WRONG)) {
    test(`${what} is as one without it`, async (t) => {
      const registry = await ReferrerRegistry.start();
      t.after(() => registry.stop());
      const placed = placeImage(registry, image);
      for (const blob of [hot, document]) registry.addBlob(blob);
      addAdvice(registry, placed, advice);
      await StartNode.with({}, async (node) => {
        const started = await node.begin(placed);
        await started.readPages(HOT);
        await started.readAll();
        if (warnings > 0) await node.logged(SET_ASIDE, warnings);
        await started.end();
        assert.deepEqual(node.warnings(), Array(warnings).fill(SET_ASIDE));
      });
      const bytes = adviceBytes(registry);
      assert.ok(bytes <= bytesMax, `${bytes} bytes of advice`);
    });
  }

  test('a damaged and a good artifact reads right', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const placed = placeImage(registry, image);
    addAdvice(registry, placed, { hot, annotations: { 'dev.obd-ts.load-order.name': 'other' } });
    addAdvice(registry, placed, { hot: noise, order: 'none' });
    addAdvice(registry, placed, { hot, order: document });
    await StartNode.with({}, async (node) => {
      const started = await node.begin(placed);
      await started.readAll();
      await started.end();
      assert.ok(node.warnings().length <= 1);
    });
  });
});

describe('a load order that cannot be used', { skip: blockdUnfit }, () => {
  const chunks = Array.from({ length: 32 }, (_, i) => [i % 2, Math.floor(i / 2)]);
  const predicted = encodeLoadOrder(orderOfChunks(image, chunks.flat()));

  test('of the registry or of this host leaves the place to the one that the image names', async (t) => {
    const registry = await ReferrerRegistry.start();
    t.after(() => registry.stop());
    const placed = placeImage(registry, image);
    const loadOrder = `${registry.addBlob(predicted)}@${predicted.length}`;
    addAdvice(registry, placed, { hot: noise, order: noise });
    const digests = image.layers.map(({ digest }) => digest);
    await StartNode.with({}, async (node) => {
      const orders = join(node.stateDirectory, 'load-orders');
      await mkdir(orders, { recursive: true });
      await writeFile(new KeptOrders(orders).pathOf(digests), noise);
      // A name that is too long for a load order's takes nothing away.
      const started = await node.begin(placed, { loadOrder, orderNames: ['n'.repeat(300)] });
      assert.equal((await node.logged('load order replayed'))['from'], 'image');
      await started.readAll();
      await started.end();
      assert.deepEqual(node.warnings(), [SET_ASIDE]);
    });
  });
});

/** The bytes that were sent, without those of layers. */
function adviceBytes(registry: ReferrerRegistry): number {
  const layers = new Set(image.layers.map(({ digest }) => digest));
  const advice = registry.served.filter(({ digest }) => !layers.has(digest));
  return advice.reduce((sum, { sent }) => sum + sent, 0);
}

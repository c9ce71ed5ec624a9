/**
 * Goal: a recorded order names the pages and all chunks that the same reads need, each once and in the order of first use, within the
 * limits.
 * Method: images of layers of our own making; the chunks that the order names are fetched, and must be enough for its reads.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { layer, withScene } from '../../test/support/image-scene.js';
import { pagesIn } from '../../test/support/load-orders.js';
import { noisyPage, provedLayer } from '../../test/support/proved-layer.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { encodeLoadOrder, PAGES_MAX, parseLoadOrder } from './load-order.js';
import { orderOf } from './recorded-order.js';

after(removeCacheDirectories);

const PAGES = 6_000;
const RECORDED = { kind: 'recorded', readAheadBytes: 4096 } as const;

describe('orderOf()', () => {
  test('names every chunk and page that the same reads need again, and few others', async () => {
    await withScene(async ({ registry, open }) => {
      const { blob, hashTree } = provedLayer(PAGES, (at) => noisyPage(at, 1));
      const proved = registry.add(blob);
      const plain = registry.add(layer(PAGES * 4096, PAGES, 2));
      const lowers = [
        { digest: proved.digest, size: proved.sizeBytes, hashTree },
        { digest: plain.digest, size: plain.sizeBytes },
      ];
      const layers = [
        { digest: proved.digest, root: hashTree.root },
        { digest: plain.digest, root: undefined },
      ];
      const reads = [9_000, 4_000, 4_001, 2_500, 11_000].map((at, i) => ({
        offset: at * 4096,
        length: 3 * 4096,
        ms: 7.4 * i,
      }));
      const first = await open({ lowers });
      const { disk, files } = first;
      const order = orderOf(reads, { disk, files, layers }, RECORDED);
      first.close();

      assert.deepEqual(parseLoadOrder(encodeLoadOrder(order), 'order'), order);
      assert.equal(order.starts, 1);
      assert.deepEqual(
        order.runs.map(({ layer, ms }) => [layer, ms]),
        [
          [1, 0],
          [0, 7],
          [0, 15],
          [0, 22],
          [1, 30],
        ],
      );
      // The third read has one new page; the data of a layer begin at a whole page or not.
      assert.ok(pagesIn(order).length <= 13 + 5, `${pagesIn(order).length} pages`);
      assert.equal(order.chunks[0], 1, 'the first read is of the upper layer');
      assert.ok(order.chunks.length / 2 <= 2 * reads.length + 6, `${order.chunks.length / 2}`);

      const image = await open({ lowers });
      for (let i = 0; i < order.chunks.length; i += 2) {
        const remote = image.remote[order.chunks[i]!]!;
        const offset = order.chunks[i + 1]! * CHUNK_BYTES;
        await remote.load(offset, Math.min(CHUNK_BYTES, remote.sizeBytes - offset));
      }
      for (const { layer, leaf, count } of order.runs) {
        const file = image.files[layer]!;
        const end = Math.min((leaf + count) * 4096, file.sizeBytes);
        assert.ok(file.tryRead(Buffer.alloc(end - leaf * 4096), leaf * 4096), `${leaf} is local`);
      }
      for (const { offset, length } of reads) {
        assert.ok(image.disk.tryRead(Buffer.alloc(length), offset), `${offset} is local`);
      }
      image.close();
    });
  });

  test('ends for endless reads, and leaves out what has no room', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest } = registry.add(layer(0, 3, 1));
      const image = await open({ lowers: [{ digest }] });
      const { disk, files } = image;
      const parts = { disk, files, layers: [{ digest, root: undefined }] };
      const endless = function* (length: number) {
        for (;;) yield { offset: 0, length, ms: 0 };
      };
      const order = orderOf(endless(4096), parts, { kind: 'predicted', readAheadBytes: 0 });
      assert.equal(order.starts, 0);
      assert.ok(pagesIn(order).length <= 2 && pagesIn(order).length <= PAGES_MAX);
      assert.equal(orderOf(endless(0), parts, RECORDED).runs.length, 0);
      image.close();
    });
  });
});

/**
 * Goal: a trace names what its reads need of the image's blobs, and one that does not fit the image is refused.
 * Method: images of layers of our own making; the chunks that a trace names are fetched, and must be enough for its reads.
 */
import assert from 'node:assert/strict';
import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { removeCacheDirectories } from '../../test/support/cache-directories.js';
import { assertPage, layer, withScene } from '../../test/support/image-scene.js';
import { noisyPage, provedLayer } from '../../test/support/proved-layer.js';
import { traceOf } from '../../test/support/recorded-trace.js';
import { ErrorCodes } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { encodeTrace, parseTrace, TRACED_READS_MAX } from '../layers/read-trace.js';
import { fetchOrder } from './fetch-order.js';
import { tracedRanges } from './image-trace.js';

after(removeCacheDirectories);

describe('a trace of reads', () => {
  test('is no part of the disk, wherever it is, and its blob is not asked for', async () => {
    await withScene(async ({ registry, open }) => {
      const [first, second] = [registry.add(layer(0, 3, 1)), registry.add(layer(1 << 20, 3, 2))];
      const trace = { digest: `sha256:${'0'.repeat(64)}`, size: 9, kind: 'overlaybd-trace' };
      const lowers = [{ digest: first.digest }, trace, { digest: second.digest }, trace];
      const image = await open({ lowers, accelerationLayer: true });
      assert.equal(image.layers, 2);
      await assertPage(image, 0, 1);
      await assertPage(image, 1 << 20, 2);
      image.close();
    });
  });

  test('names every chunk that the same reads need again, and few others', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const PAGES = 6_000;
      const { blob, hashTree } = provedLayer(PAGES, (at) => noisyPage(at, 1));
      const proved = registry.add(blob);
      const plain = registry.add(layer(PAGES * 4096, PAGES, 2));
      const lowers = [
        { digest: proved.digest, size: proved.sizeBytes, hashTree },
        { digest: plain.digest, size: plain.sizeBytes },
      ];
      const reads = [9_000, 4_000, 4_001, 2_500, 11_000].map((at) => at * 4096);
      const trace = { file: join(directory, 'trace'), kind: 'overlaybd-trace' };
      const first = await open({ lowers });
      const disk = reads.map((offset) => ({ offset, length: 3 * 4096 }));
      writeFileSync(trace.file, traceOf(disk, first.disk, first.files));
      first.close();

      const image = await open({ lowers: [...lowers, trace] });
      const order = fetchOrder(await tracedRanges(image.trace!, image.files), image.remote);
      assert.deepEqual(order.digests, [proved.digest, plain.digest]);
      assert.equal(order.chunks[0], 1, 'the first read is of the upper layer');
      assert.ok(
        order.chunks.length / 2 <= 2 * reads.length + 6,
        `${order.chunks.length / 2} chunks`,
      );
      for (let i = 0; i < order.chunks.length; i += 2) {
        const remote = image.remote[order.chunks[i]!]!;
        const offset = order.chunks[i + 1]! * CHUNK_BYTES;
        await remote.load(offset, Math.min(CHUNK_BYTES, remote.sizeBytes - offset));
      }
      for (const { offset, length } of disk) {
        assert.ok(image.disk.tryRead(Buffer.alloc(length), offset), `${offset} is local`);
      }
      image.close();
    });
  });

  test('is refused by name where it fits another image, is lost, a link or too large', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const { digest } = registry.add(layer(0, 30, 1));
      const image = await open({ lowers: [{ digest }] });
      const file = join(directory, 'trace');
      const rejects = async (code: string, message: RegExp) => {
        await assert.rejects(tracedRanges({ file }, image.files), { code, message });
      };
      await rejects(ErrorCodes.NotFound, /trace/);
      const beyond = { layer: 0, offset: image.files[0]!.sizeBytes - 1, length: 2 };
      writeFileSync(file, encodeTrace([{ ...beyond, length: 1 }, beyond]));
      await rejects(ErrorCodes.Corrupt, /layer 1, which is shorter; it belongs to another image/);
      writeFileSync(file, Buffer.alloc(3 << 20));
      await rejects(ErrorCodes.Corrupt, /too many for a trace/);
      writeFileSync(join(directory, 'good'), encodeTrace([]));
      rmSync(file);
      symlinkSync('good', file);
      await rejects(ErrorCodes.Corrupt, /symbolic link/);
      rmSync(file);
      // As overlaybd does with layers that the image lacks.
      writeFileSync(file, encodeTrace([{ layer: 9, offset: 0, length: 1 }]));
      assert.deepEqual([...(await tracedRanges({ file }, image.files))], []);
      image.close();
    });
  });

  test('that names a whole layer in each read ends early', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const { digest } = registry.add(layer(0, 600, 1));
      const image = await open({ lowers: [{ digest }] });
      const whole = { layer: 0, offset: 0, length: image.files[0]!.sizeBytes };
      assert.ok(whole.length > 2 << 20);
      const file = join(directory, 'trace');
      writeFileSync(file, encodeTrace(new Array(TRACED_READS_MAX).fill(whole)));
      assert.equal([...(await tracedRanges({ file }, image.files))].length, TRACED_READS_MAX);
      image.close();
    });
  });

  test('has as many reads as fit, and no further one is looked up', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest } = registry.add(layer(0, 3, 1));
      const image = await open({ lowers: [{ digest }] });
      const endless = (function* () {
        for (;;) yield { offset: 0, length: 4096 };
      })();
      const trace = traceOf(endless, image.disk, image.files);
      assert.equal(parseTrace(trace, { label: 'trace' }).length, TRACED_READS_MAX);
      image.close();
    });
  });

  test('that an image config does not mark is refused', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest } = registry.add(Buffer.from('2018efc200000000', 'hex'));
      await assert.rejects(open({ lowers: [{ digest }] }), {
        code: ErrorCodes.Unsupported,
        message: /layer 1 of 1: a layer of kind "overlaybd-trace" holds no blocks/,
      });
    });
  });
});

/**
 * Goal: an image opens from files, from a registry and from both, in few requests, as the disk that its
 * layers add up to; a failed opening names the layer, and leaves nothing open.
 * Method: layers of our own making and upstream's vectors, through a real cache, from a registry in memory.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { gone, stall } from '../../test/support/blob-double.js';
import { BlobRegistry } from '../../test/support/blob-registry.js';
import { cacheDirectory, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { OpenBlob } from '../../test/support/cache-scene.js';
import {
  assertPage,
  decoded,
  layer,
  page,
  repoBlobUrl,
  withScene,
} from '../../test/support/image-scene.js';
import { MemorySink } from '../../test/support/memory-file.js';
import { noisyPage, provedLayer } from '../../test/support/proved-layer.js';
import { UNLIMITED_INDEX_MEMORY } from '../../test/support/unlimited-memory.js';
import {
  DISK_SHA256,
  sha256OfDisk,
  vectorBytes,
  vectorPath,
  vectorsMissing,
} from '../../test/support/vectors.js';
import { statsOf } from '../cache/blob-handle.js';
import { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes } from '../errors.js';
import { IndexBudget, type IndexMemory } from '../io/index-budget.js';
import { INDEX_REFETCHES_MAX, readFully } from '../io/random-access-file.js';
import { LAYER_FORMATS } from '../layers/layer-formats.js';
import { CommittedLayerWriter } from '../lsmt/committed-writer.js';
import { type BlobAddress, openImage } from './open-image.js';

after(removeCacheDirectories);

describe('openImage()', () => {
  test('opens twelve remote layers with two requests each, and reads their sum', async () => {
    await withScene(async ({ registry, open }) => {
      const lowers = Array.from({ length: 12 }, (_, i) => {
        const { digest, sizeBytes } = registry.add(layer(i * 4096 * 10, 400 + 100 * i, i));
        return { digest, size: sizeBytes };
      });
      const image = await open({ lowers });
      assert.equal(registry.requests, 24);
      assert.equal(statsOf(image.remote).fetchRequests, 24);
      assert.equal(statsOf(image.remote).fetchedBytes, registry.requestedBytes);
      assert.equal(statsOf(image.remote).cachedBytes, registry.requestedBytes);
      assert.equal(image.layers, 12);
      await assertPage(image, 0, 0);
      await assertPage(image, 11 * 4096 * 10 + 4096 * 1000, 11);
      image.close();
    });
  });

  test('fetches the metadata that the config names with the headers, within limits', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest, sizeBytes } = registry.add(layer(0, 2000, 1));
      const named = await open({ lowers: [{ digest, size: sizeBytes, metadataBytes: 1_000_000 }] });
      assert.equal(registry.requests, 2);
      for (let i = 0; i < 400; i++) await assertPage(named, i * 4096, 1);
      assert.equal(registry.requests, 2);
      named.close();
      const larger = registry.add(layer(0, 8000, 2));
      const claim = { digest: larger.digest, size: larger.sizeBytes, metadataBytes: 999e9 };
      const before = registry.requestedBytes;
      const claimed = await open({ lowers: [claim] });
      const fetched = registry.requestedBytes - before;
      assert.ok(fetched < larger.sizeBytes / 2, `${fetched} bytes`);
      claimed.close();
    });
  });

  test('opens a proved layer with two requests, which also bring the hashes of its metadata', async () => {
    await withScene(async ({ registry, open }) => {
      const { blob, hashTree } = provedLayer(12_000, (at) => noisyPage(at, 1));
      const { digest, sizeBytes } = registry.add(blob);
      const lower = { digest, size: sizeBytes, hashTree, metadataBytes: 1_000_000 };
      const image = await open({ lowers: [lower] });
      assert.equal(registry.requests, 2);
      assert.equal(image.provedLayers, 1);
      const page = Buffer.alloc(4096);
      for (let i = 0; i < 400; i++) {
        await readFully(image.disk, page, i * 4096);
        assert.ok(page.equals(noisyPage(i, 1)));
      }
      assert.equal(registry.requests, 2);
      await readFully(image.disk, page, 9000 * 4096);
      assert.ok(page.equals(noisyPage(9000, 1)));
      image.close();
      const untreed = await open({ lowers: [{ digest, size: sizeBytes }] });
      assert.equal(untreed.provedLayers, 0);
      await readFully(untreed.disk, page, 100 * 4096);
      assert.ok(page.equals(noisyPage(100, 1)));
      untreed.close();
    });
  });

  test('fetches damaged headers of a proved layer again, and refuses a root that is not its own', async () => {
    await withScene(async ({ registry, open }) => {
      const { blob, hashTree } = provedLayer(100, (at) => noisyPage(at, 1));
      const source = registry.add(blob);
      const { digest, sizeBytes } = source;
      let damaged = 1;
      source.damage = (target, { offset }) => {
        // A byte of the tar's header that no check of tar or ZFile covers: the record block's padding.
        if (offset === 0 && damaged-- > 0) target[1000]! ^= 1;
      };
      const image = await open({ lowers: [{ digest, size: sizeBytes, hashTree }] });
      assert.ok(damaged < 0);
      image.close();
      const root = provedLayer(100, (at) => noisyPage(at, 2)).hashTree.root;
      const claimed = { digest, size: sizeBytes, hashTree: { ...hashTree, root } };
      await assert.rejects(open({ lowers: [claimed] }), {
        code: ErrorCodes.Corrupt,
        message: /root of its hash tree/,
      });
    });
  });

  test('a second time needs no request, with the registry down', async () => {
    await withScene(async ({ registry, open }) => {
      const blob = registry.add(layer(0, 2000, 1));
      const lowers = [{ digest: blob.digest }];
      const first = await open({ lowers });
      await assertPage(first, 4096 * 1000, 1);
      first.close();
      blob.before = gone;
      const second = await open({ lowers });
      await assertPage(second, 4096 * 1000, 1);
      assert.deepEqual(
        [statsOf(second.remote).fetchRequests, statsOf(second.remote).fetchedBytes],
        [0, 0],
      );
      await assert.rejects(assertPage(second, 4096 * 500, 1), { code: ErrorCodes.NotFound });
      second.close();
    });
  });

  test('counts remote layers without checksums', async () => {
    await withScene(async ({ registry, open }) => {
      const plain = new MemorySink();
      const writer = new CommittedLayerWriter(plain, { virtualBytes: 1 << 30 });
      writer.write(0, page(0, 1));
      writer.finish();
      const { digest: unchecked } = registry.add(plain.written);
      const { digest: checked } = registry.add(layer(4096, 10, 2));
      const image = await open({ lowers: [{ digest: unchecked }, { digest: checked }] });
      assert.equal(image.uncheckedLayers, 1);
      image.close();
    });
  });

  test('charges the tables of all layers together before it reads an index', async () => {
    await withScene(async ({ registry, open }) => {
      const lowers = Array.from({ length: 50 }, (_, i) => {
        const bytes = layer(0, 400, i);
        // Damages the index of the ZFile, which the opening must not read.
        bytes.fill(0xff, bytes.length - 4096, bytes.length - 3072);
        return { digest: registry.add(bytes).digest };
      });
      // Enough for the tables of some layers, but not of all.
      const budget = new IndexBudget(32 << 10);
      const account = budget.account(false);
      await assert.rejects(open({ lowers }, account), {
        code: ErrorCodes.Unsupported,
        message: /index_memory/,
      });
      account.close();
      assert.equal(budget.usedBytes, 0);
    });
  });

  test('images that fit one by one are opened one after the other', async () => {
    await withScene(async ({ registry, open }) => {
      const lowers = Array.from({ length: 8 }, (_, i) => ({
        digest: registry.add(layer(i << 20, 200, i)).digest,
      }));
      const measured = new IndexBudget(1 << 30);
      let peakBytes = 0;
      const account = measured.account(false);
      const measuring: IndexMemory = {
        charge: async (bytes, what) => {
          await account.charge(bytes, what);
          peakBytes = Math.max(peakBytes, measured.usedBytes);
        },
        release: (bytes) => account.release(bytes),
      };
      (await open({ lowers }, measuring)).close();
      const budget = new IndexBudget(peakBytes + measured.usedBytes * 4);
      await Promise.all(
        Array.from({ length: 4 }, async () => {
          const own = budget.account(false);
          const image = await open({ lowers }, own);
          own.opened();
          await assertPage(image, 0, 0);
          image.close();
          own.close();
        }),
      );
      assert.equal(budget.usedBytes, 0);
    });
  });

  test('an index that is wrong at the registry is fetched as often as its limit says', async () => {
    await withScene(async ({ registry, open }) => {
      const bytes = layer(0, 400, 1);
      const { digest } = registry.add(bytes);
      (await open({ lowers: [{ digest }] })).close();
      const before = registry.requests;
      const bad = layer(0, 400, 2);
      // Where the tar pads the ZFile there is at most one block behind its trailer.
      bad.fill(0xff, bad.length - 3072, bad.length - 2048);
      await assert.rejects(open({ lowers: [{ digest: registry.add(bad).digest }] }), {
        code: ErrorCodes.Corrupt,
      });
      const requests = registry.requests - before;
      assert.ok(requests <= before + 1 + INDEX_REFETCHES_MAX, `${requests} requests, ${before}`);
    });
  });

  test('a small layer comes in one request', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest } = registry.add(layer(0, 30, 1));
      const image = await open({ lowers: [{ digest }] });
      assert.equal(registry.requests, 1);
      image.close();
    });
  });

  test('takes the local file first, then the file in the folder, then the registry', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const local = (name: string, seed: number) => {
        mkdirSync(join(directory, 'fs'), { recursive: true });
        writeFileSync(join(directory, 'fs', name), layer(0, 3, seed));
      };
      const { digest } = registry.add(layer(0, 3, 1));
      const lower = { file: join(directory, 'fs', 'own'), dir: join(directory, 'fs'), digest };
      for (const [name, seed] of [
        ['nothing', 1],
        ['overlaybd.sealed', 2],
        ['.commit', 3],
        ['overlaybd.commit', 4],
        ['own', 5],
      ] as const) {
        local(name, seed);
        const image = await open({ lowers: [lower] });
        await assertPage(image, 0, seed);
        assert.equal(image.remoteBytes > 0, seed === 1);
        image.close();
      }
    });
  });

  test('fetches damage in transit again', async () => {
    await withScene(async ({ registry, open }) => {
      const blob = registry.add(layer(0, 2000, 1));
      let damaged = 0;
      blob.damage = (target) => {
        if (damaged++ < 2) target.fill(0x55);
      };
      const image = await open({ lowers: [{ digest: blob.digest }] });
      await assertPage(image, 4096 * 1000, 1);
      image.close();
      assert.ok(damaged <= 8, `${damaged} requests`);
    });
  });

  test('names the layer that cannot be opened, and closes the others', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const good = { digest: registry.add(layer(0, 2000, 1)).digest };
      const noise = registry.add(Buffer.alloc(100_000, 'noise'));
      const absent = `sha256:${'0'.repeat(64)}`;
      for (const [lower, code, message] of [
        [{ digest: absent }, ErrorCodes.NotFound, /^Cannot open layer 3 of 4: .*does not have it$/],
        [{ digest: noise.digest }, ErrorCodes.Corrupt, /^Cannot open layer 3 of 4: .*neither/],
        [{ file: '/nowhere/x' }, ErrorCodes.NotFound, /there is no "\/nowhere\/x", and it has no/],
        [{}, ErrorCodes.InvalidArgument, /no "file" or "dir", and it has no "digest"/],
        [{ file: directory }, ErrorCodes.InvalidArgument, /not a regular file/],
        [{ file: '/dev/null' }, ErrorCodes.InvalidArgument, /not a regular file/],
      ] as const) {
        await assert.rejects(open({ lowers: [good, good, lower, good] }), { code, message });
      }
      assert.ok(noise.requests.length <= 8);
      const other = { repoBlobUrl: '', lowers: [good] };
      await assert.rejects(open(other), { message: /the image has no "repoBlobUrl"/ });
    });
  });

  test('a registry that hangs is waited for no longer when the cache is closed', async () => {
    const directory = cacheDirectory();
    const cache = await BlockCache.open(directory, { capacityBytes: 1 << 30, reserveBytes: 0 });
    const registry = new BlobRegistry();
    const hanging = registry.add(layer(0, 300, 1));
    hanging.before = stall;
    const opening = openImage(
      { repoBlobUrl, lowers: [{ digest: hanging.digest }] },
      {
        openBlob: async ({ host, repository, digest, sizeBytes }: BlobAddress) =>
          await OpenBlob.open(cache, await registry.find(host, repository, digest, sizeBytes)),
        formats: LAYER_FORMATS,
        decoded,
        memory: UNLIMITED_INDEX_MEMORY,
      },
    );
    const refused = assert.rejects(opening, { code: ErrorCodes.FailedPrecondition });
    await new Promise((resolve) => setTimeout(resolve, 30));
    await cache.close();
    await refused;
  });

  test('refuses configs that it would read wrongly', async () => {
    await withScene(async ({ registry, directory, open }) => {
      const { digest } = registry.add(layer(0, 30, 1));
      const unsupported = { code: ErrorCodes.Unsupported };
      const upper = { data: '/w/data', index: '/w/index' };
      await assert.rejects(open({ lowers: [{ digest }], upper }), unsupported);
      await assert.rejects(open({ lowers: [{ digest, targetDigest: digest }] }), unsupported);
      const zipped = { digest, targetFile: join(directory, 'x'), gzipIndex: '/x/gzip.meta' };
      await assert.rejects(open({ lowers: [zipped] }), unsupported);
      await assert.rejects(open({}), { code: ErrorCodes.InvalidArgument });
    });
  });

  test('leaves out a topmost layer that only accelerates', async () => {
    await withScene(async ({ registry, open }) => {
      const { digest } = registry.add(layer(0, 30, 1));
      const image = await open({
        lowers: [{ digest }, { dir: '/nowhere' }],
        accelerationLayer: true,
        upper: { data: '' },
      });
      assert.equal(image.layers, 1);
      image.close();
    });
  });
});

describe('upstream’s images', { skip: vectorsMissing }, () => {
  test('read from the cache alone to the published hash, once they are in it', async () => {
    await withScene(async ({ registry, open }) => {
      const blobs = ['l1.lz4.4k.tar.commit', 'l2.lz4.4k.tar.commit'].map((name) =>
        registry.add(vectorBytes(name)),
      );
      const lowers = blobs.map(({ digest }) => ({ digest }));
      const first = await open({ lowers });
      await first.disk.load(0, first.disk.sizeBytes);
      first.close();
      for (const blob of blobs) blob.before = gone;
      const second = await open({ lowers });
      assert.equal(await sha256OfDisk(second.disk), DISK_SHA256.l1l2);
      second.close();
    });
  });

  test('a TurboOCI layer takes its contents from a local tar', async () => {
    await withScene(async ({ open }) => {
      const image = await open({
        lowers: [{ file: vectorPath('turbo/tar.z.tar.commit'), targetFile: vectorPath('l1.tar') }],
      });
      const magic = Buffer.alloc(2);
      await readFully(image.disk, magic, 1024 + 56);
      assert.equal(magic.readUInt16LE(), 0xef53, 'the superblock of an ext4');
      image.close();
    });
  });
});

/**
 * Goal: whatever a registry, its link or the disk does, no start fails and no wrong byte is read; and what a read waits for
 * comes before what no read waits for.
 * Method: images with hash trees, read as a mounted disk is, from a registry on loopback that answers wrongly at random from
 * a seed, and over a link whose rate the test sets. Each line of the list is one test.
 *
 *     OBD_FETCH_SEED=7 npm run test:fetch
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { registrySource } from '../../src/blockd/registry-source.js';
import { EndableDisk } from '../../src/blockdev/endable-disk.js';
import type { BlobSource } from '../../src/cache/blob-source.js';
import { BlockCache, type BlockCacheOptions } from '../../src/cache/block-cache.js';
import { openImage } from '../../src/image/open-image.js';
import { type RandomAccessFile, readFully } from '../../src/io/random-access-file.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { openingParts } from '../../src/layers/opening-parts.js';
import { RegistryClient } from '../../src/registry/registry-client.js';
import { RegistryHosts } from '../../src/registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../../src/registry/registry-limits.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { BlobDouble, distinctBytes } from '../support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../support/cache-directories.js';
import { OpenBlob, ROOM } from '../support/cache-scene.js';
import { type Random, randomOf } from '../support/changed-blobs.js';
import { type FaultKind, FaultRegistry, PASSING_KINDS } from '../support/fault-registry.js';
import { noisyPage, PAGE_BYTES, type ProvedLayer, provedLayer } from '../support/proved-layer.js';
import { SeededLink } from '../support/seeded-link.js';
import { UNLIMITED_INDEX_MEMORY } from '../support/unlimited-memory.js';

after(removeCacheDirectories);

const SEED = Number(process.env['OBD_FETCH_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const FORM = { algorithm: 'zstd', blockBytes: 16384 } as const;
/** 6 MiB of disk, 3 MiB of blob. */
const PAGES = 1536;
const READ_WAIT_MS = 60_000;
const IMAGES = 40;
/** With an empty cache each. */
const ROUNDS = 8;
/** Of the scheduler, for one registry. */
const REQUESTS_MAX = 32;

const contentOf = (seed: number) =>
  Buffer.concat(Array.from({ length: PAGES }, (_, page) => noisyPage(page, seed)));
const content = contentOf(1);
const layer = provedLayer(PAGES, (page) => noisyPage(page, 1), FORM);

/** Opens an image of one layer and reads `reads` ranges of it at random places, the first ones in order. */
async function start(
  cache: BlockCache,
  source: BlobSource,
  { hashTree }: ProvedLayer,
  expected: Buffer,
  { random, reads }: { readonly random: Random; readonly reads: number },
): Promise<void> {
  const { digest, sizeBytes: size } = source.key;
  const image = await openImage(
    {
      repoBlobUrl: 'https://registry.example/v2/app/blobs',
      lowers: [{ digest, size, hashTree }],
    },
    {
      openBlob: () => OpenBlob.open(cache, source),
      formats: LAYER_FORMATS,
      decoded: new DecodedBlocks(1 << 20),
      memory: UNLIMITED_INDEX_MEMORY,
    },
  );
  const disk = new EndableDisk(image.disk);
  disk.readWaitMs = READ_WAIT_MS;
  try {
    for (let i = 0, next = 0; i < reads; i++) {
      const length = PAGE_BYTES * (1 + random(32));
      const at = i < reads / 2 ? next : PAGE_BYTES * random(PAGES - 32);
      next = (at + length) % (expected.length - 32 * PAGE_BYTES);
      const target = Buffer.alloc(length);
      await readFully(disk, target, at);
      assert.ok(
        target.equals(expected.subarray(at, at + length)),
        `seed ${SEED}: [${at}, +${length})`,
      );
    }
  } finally {
    image.close();
  }
}

async function withCache(
  options: BlockCacheOptions,
  work: (cache: BlockCache) => Promise<void>,
): Promise<void> {
  const cache = await BlockCache.open(cacheDirectory(), options);
  try {
    await work(cache);
  } finally {
    await cache.close();
    removeCacheDirectories();
  }
}

describe('a registry', () => {
  const KINDS: Readonly<Record<string, readonly FaultKind[]>> = {
    'that answers ranges with the whole blob': ['whole-200'],
    'that sends less, more or other ranges than asked': [
      ...(['short-206', 'wider-range', 'wrong-range', 'no-content-range', 'wrong-size'] as const),
      ...(['multipart', 'two-ranges', 'part-as-200', 'odd-spelling'] as const),
    ],
    'that drops out in mid-stream': ['truncated', 'reset', 'not-http'],
    'that redirects to nowhere': ['redirect-loop', 'redirect-to-nothing', 'redirect-to-dead-host'],
    'that sends wrong bytes': ['flipped-bit', 'zeroes', 'html-same-size', 'html-200'],
    'that does all of that, and refuses at times': PASSING_KINDS,
  };
  for (const [what, kinds] of Object.entries(KINDS)) {
    test(`${what} is read right`, async (t) => {
      const registry = await FaultRegistry.start(SEED);
      const hosts = new RegistryHosts([]);
      const credentials = { label: 'none', find: async () => undefined };
      const client = new RegistryClient({ hosts, credentials, limits: DEFAULT_LIMITS });
      const digest = registry.add(layer.blob);
      try {
        const size = layer.blob.length;
        let [requests, faults] = [0, 0];
        for (let round = 0; round < ROUNDS; round++) {
          await withCache(ROOM, async (cache) => {
            const ranges = await client.blobRanges(registry.host, 'team/app', digest, size);
            const source = registrySource(ranges);
            // Opening an image ends at a refusal, as a pull does: only a mounted disk waits.
            registry.share = 0;
            const held = await cache.openBlob(source);
            for (const { offset, length } of openingParts(layer, size, 1)) {
              await held.fetch(offset, length, { urgency: 'demand', waitMs: undefined });
            }
            registry.kinds = kinds;
            registry.share = 0.3;
            const before = [registry.requests, registry.faults] as const;
            const random = randomOf(SEED + round);
            await start(cache, source, layer, content, { random, reads: 60 });
            held.close();
            requests += registry.requests - before[0];
            faults += registry.faults - before[1];
          });
        }
        t.diagnostic(`seed ${SEED}: ${faults} of ${requests} answers`);
        assert.ok(faults > 0);
      } finally {
        await client.close();
        await registry.close();
      }
    });
  }

  test('that sends slowly is read right', async () => {
    const link = new SeededLink(400, 100);
    await withCache(ROOM, async (cache) => {
      const source = link.carry(new BlobDouble(layer.blob));
      await start(cache, source, layer, content, { random: randomOf(SEED), reads: 8 });
    });
  });
});

describe('a link', () => {
  test('whose rate falls to a tenth, and rises again, keeps serving reads soon', async (t) => {
    const link = new SeededLink(20_000, 10);
    const swept = distinctBytes(24 << 20);
    const other = distinctBytes(8 << 20, 2);
    const random = randomOf(SEED);
    await withCache(ROOM, async (cache) => {
      const sweep = mounted(await OpenBlob.open(cache, link.carry(new BlobDouble(swept))));
      const lone = mounted(await OpenBlob.open(cache, link.carry(new BlobDouble(other))));
      let slowest = 0;
      let isOver = false;
      const demands = (async () => {
        while (!isOver) {
          const at = PAGE_BYTES * random(other.length / PAGE_BYTES);
          const beganMs = performance.now();
          await readRight(lone, other, at, PAGE_BYTES);
          slowest = Math.max(slowest, performance.now() - beganMs);
          await sleep(5);
        }
      })();
      for (let at = 0; at < swept.length; at += 128 * 1024) {
        if (at === 8 << 20) link.bytesPerMs = 2_000;
        if (at === 14 << 20) link.bytesPerMs = 20_000;
        await readRight(sweep, swept, at, 128 * 1024);
      }
      isOver = true;
      await demands;
      t.diagnostic(
        `seed ${SEED}: slowest read ${Math.round(slowest)} ms, ${link.requests} requests`,
      );
      // What was in flight at the fast rate, 80 ms of it, takes 0.8 s at the slow one; then the read's own granule, 0.25 s.
      assert.ok(slowest < 2_500, `${slowest} ms`);
    });
  });

  const ROOMS: Readonly<Record<string, BlockCacheOptions>> = {
    'with room for all': ROOM,
    'with room for a tenth of them': { capacityBytes: 12 << 20, reserveBytes: 0 },
    'on a full disk': { capacityBytes: 1 << 30, reserveBytes: Number.MAX_SAFE_INTEGER },
  };
  for (const [where, room] of Object.entries(ROOMS)) {
    test(`lets ${IMAGES} images start at once ${where}`, async (t) => {
      const link = new SeededLink(60_000, 2);
      const random = randomOf(SEED);
      const endedMs: number[] = [];
      await withCache(room, async (cache) => {
        const beganMs = performance.now();
        const starts = Array.from({ length: IMAGES }, async (_, i) => {
          const own = layers[i % layers.length]!;
          // Each image is another blob, with another digest.
          const digest = `sha256:${`${i}`.padStart(64, '0')}`;
          const source = link.carry(new BlobDouble(own.layer.blob, 'registry.example/app', digest));
          await start(cache, source, own.layer, own.content, {
            random: randomOf(SEED + i),
            reads: 20 + random(10),
          });
          endedMs.push(performance.now() - beganMs);
        });
        await Promise.all(starts);
        const { blobs } = await cache.list();
        const cachedBytes = blobs.reduce((sum, each) => sum + each.cachedBytes, 0);
        assert.ok(cachedBytes <= room.capacityBytes!, `${cachedBytes} bytes cached`);
      });
      const [first, last] = [Math.min(...endedMs), Math.max(...endedMs)].map(Math.round);
      t.diagnostic(
        `seed ${SEED}: ended after ${first} to ${last} ms, ${(link.sentBytes / 1e6).toFixed(0)} MB, ${link.requests} requests, ${link.parallelMax} at once`,
      );
      assert.ok(link.parallelMax <= REQUESTS_MAX, `${link.parallelMax} requests at once`);
    });
  }
});

const layers = [
  { layer, content },
  { layer: provedLayer(PAGES, (page) => noisyPage(page, 2), FORM), content: contentOf(2) },
];

function mounted(blob: OpenBlob): RandomAccessFile & { readonly readWaitMs: number } {
  return Object.assign(blob, { readWaitMs: READ_WAIT_MS });
}

async function readRight(
  file: RandomAccessFile,
  expected: Buffer,
  at: number,
  length: number,
): Promise<void> {
  const target = Buffer.alloc(length);
  await readFully(file, target, at);
  assert.ok(target.equals(expected.subarray(at, at + length)), `seed ${SEED}: [${at}, +${length})`);
}

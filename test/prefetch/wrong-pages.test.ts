/**
 * Goal: advice that is well made and wrong, of pages or chunks that the start never reads, costs its own bytes, and a few per
 * cent of the start's time: no more than the link takes for these bytes.
 * Method: one image, read page by page over a link whose rate the test sets, without advice and with wrong advice.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { ExpectedStarts } from '../../src/blockd/expected-starts.js';
import { HotImages } from '../../src/blockd/hot-images.js';
import type { StartAdvice } from '../../src/blockd/start-advice.js';
import { BlockCache } from '../../src/cache/block-cache.js';
import { openImage } from '../../src/image/open-image.js';
import { readFully } from '../../src/io/random-access-file.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { NO_WISH } from '../../src/load-order/select-order.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { BlobDouble } from '../support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../support/cache-directories.js';
import { OpenBlob, ROOM } from '../support/cache-scene.js';
import { randomOf } from '../support/changed-blobs.js';
import { PAGE_BYTES } from '../support/proved-layer.js';
import { SeededLink } from '../support/seeded-link.js';
import { hotBlobOf, orderOfChunks, startImage } from '../support/start-image.js';
import { UNLIMITED_INDEX_MEMORY } from '../support/unlimited-memory.js';

after(removeCacheDirectories);

const SEED = Number(process.env['OBD_HOT_SEED'] ?? 7);
/** 16 MiB of disk, 9 MiB of blobs. */
const PAGES = 4096;
const READS = 150;
/** A start computes so long between two reads. */
const COMPUTES_MS = 10;
const READ_WAIT_MS = 60_000;
/** 20 MB/s, and 20 ms to the first byte. */
const LINK = [20_000, 20] as const;

const image = startImage(PAGES, 1);
/** The start reads the first half of the disk; the advice is of its end. */
const random = randomOf(SEED);
const reads = Array.from({ length: READS }, () => random(PAGES / 2));
const unread = Array.from({ length: 600 }, (_, i) => PAGES - 1 - i);

/** Reads all pages with this advice. @returns The time of the reads, and what came over the link. */
async function readsWith(advice: StartAdvice | undefined, hot: Buffer | undefined) {
  const link = new SeededLink(...LINK);
  const cache = await BlockCache.open(cacheDirectory(), ROOM);
  const sources = new Map(
    image.layers.map(({ digest, blob }) => {
      return [digest, link.carry(new BlobDouble(blob, 'registry.example/app', digest))];
    }),
  );
  let hotBytes = 0;
  const client = {
    blobRanges: async (_host: string, _repository: string, digest: string) => {
      const source = sources.get(digest)!;
      const { label, sizeBytes, key } = source;
      return {
        ...{ registry: key.origin, digest, sizeBytes, label },
        attempt: async (...args: Parameters<BlobDouble['attempt']>) =>
          await source.attempt(...args),
        invalidated: () => {},
      };
    },
    readBlob: async function* () {
      for await (const piece of link.stream(hot!)) {
        hotBytes += piece.length;
        yield piece;
      }
    },
  };
  const layers = image.layers.map(({ digest, blob, hashTree }) => {
    return { digest, sizeBytes: blob.length, root: hashTree?.root };
  });
  const starts = new ExpectedStarts({
    cache,
    client: client as never,
    hotImages: new HotImages(cache, client as never),
    advices: { find: async () => advice } as never,
    isUsed: true,
    log: pino({ level: 'silent' }),
  });
  const opened = await openImage(
    {
      repoBlobUrl: 'https://registry.example/v2/app/blobs',
      lowers: image.layers.map(({ digest, blob, hashTree }) => {
        return { digest, size: blob.length, ...(hashTree && { hashTree }) };
      }),
    },
    {
      openBlob: async ({ digest }) => await OpenBlob.open(cache, sources.get(digest)!),
      formats: LAYER_FORMATS,
      decoded: new DecodedBlocks(1 << 20),
      memory: UNLIMITED_INDEX_MEMORY,
    },
  );
  const disk = Object.assign(opened.disk, { readWaitMs: READ_WAIT_MS });
  const before = link.sentBytes;
  const rest = { manifest: undefined, manifestType: '', loadOrder: undefined, wish: NO_WISH };
  const start = starts.opened(
    { host: 'registry.example', repository: 'app', ...rest, layers },
    true,
  );
  const beganMs = performance.now();
  for (const page of reads) {
    const found = Buffer.alloc(PAGE_BYTES);
    await readFully(disk, found, page * PAGE_BYTES);
    assert.ok(found.equals(image.disk.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)));
    await sleep(COMPUTES_MS);
  }
  const ms = performance.now() - beganMs;
  const sentBytes = link.sentBytes - before + hotBytes;
  starts.closed(start);
  opened.close();
  await cache.close();
  return { ms, sentBytes };
}

test(`wrong advice costs its own bytes, and a few per cent of a start (seed ${SEED})`, async (t) => {
  const hot = await hotBlobOf(image, unread);
  const address = { host: 'registry.example', repository: 'app', digest: image.layers[0]!.digest };
  const chunks = Array.from({ length: 40 }, (_, i) => [0, 75 + i]).flat();
  const order = orderOfChunks(image, chunks);
  const wrong: Readonly<Record<string, readonly [StartAdvice, Buffer | undefined, number]>> = {
    'a hot blob': [
      { hot: { ...address, sizeBytes: hot.length }, from: 'registry', order: undefined },
      hot,
      hot.length,
    ],
    'a load order': [
      { hot: undefined, from: 'registry', order: async () => order },
      undefined,
      40 * 65536,
    ],
  };
  const without = await readsWith(undefined, undefined);
  t.diagnostic(`without: ${Math.round(without.ms)} ms, ${without.sentBytes} bytes`);
  for (const [what, [advice, bytes, bytesMax]] of Object.entries(wrong)) {
    const { ms, sentBytes } = await readsWith(advice, bytes);
    const share = ((ms - without.ms) / without.ms) * 100;
    t.diagnostic(
      `${what} of ${bytesMax} bytes: ${Math.round(ms)} ms (${share.toFixed(1)} %), ${sentBytes} bytes`,
    );
    const linkMs = bytesMax / LINK[0];
    assert.ok(ms < without.ms * 1.1 + linkMs + 1_000, `${what}: ${ms} ms, ${without.ms} without`);
    assert.ok(
      sentBytes < without.sentBytes * 1.2 + bytesMax + 65536,
      `${what}: ${sentBytes} bytes`,
    );
  }
});

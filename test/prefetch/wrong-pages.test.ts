/**
 * Goal: advice that is well made and wrong, of pages or chunks that the start does not read, costs a start a twentieth of its time
 * at most, and a bounded number of bytes. It is set aside with one warning.
 * Method: one image over a link whose rate the test sets. Its start is read without advice and with wrong advice in turns, and each
 * pair gives a ratio. The advice begins with what each start reads, as that of another command does.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { ExpectedStarts } from '../../src/blockd/expected-starts.js';
import { HotImages } from '../../src/blockd/hot-images.js';
import type { StartAdvice } from '../../src/blockd/start-advice.js';
import { BlobReader } from '../../src/cache/blob-reader.js';
import { BlockCache } from '../../src/cache/block-cache.js';
import { ImageReads } from '../../src/cache/image-reads.js';
import { OverflowChunks } from '../../src/cache/overflow-chunks.js';
import { HotFile } from '../../src/hot-blob/hot-file.js';
import { HotPages } from '../../src/hot-blob/hot-pages.js';
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
const PAIRS = Number(process.env['OBD_WRONG_PAIRS'] ?? 9);
/** Few pairs show less. */
const RATIO_MAX = PAIRS < 9 ? 1.1 : 1.05;
/** 64 MiB of disk, 35 MiB of blobs. */
const PAGES = 16_384;
const READ_WAIT_MS = 60_000;
/** 100 Mbit/s, and 20 ms to the first byte. */
const LINK = [12_500, 20] as const;
/** Pages that each start of the image reads first, and chunks of the lower layer that hold them. */
const COMMON_PAGES = 64;
const COMMON_CHUNKS = 3;
/** What is fetched in vain before it is known: what the link carries in a third of a second, and what is in flight. */
const VAIN_BYTES_MAX = 6 << 20;

interface Start {
  readonly runs: number;
  /** Pages of each run. */
  readonly pages: number;
  readonly computesMs: number;
}

const STARTS: Readonly<Record<string, Start>> = {
  'back to back': { runs: 200, pages: 1, computesMs: 0 },
  // 15 MB of pages, and two seconds of its own.
  'as of Python': { runs: 120, pages: 16, computesMs: 15 },
};

const image = startImage(PAGES, 1);
const layers = image.layers.map(({ digest, blob, hashTree }) => {
  return { digest, sizeBytes: blob.length, root: hashTree?.root };
});
const common = Array.from({ length: COMMON_PAGES }, (_, page) => page);
/** The start reads the first half of the disk, and the advice is of the second. */
const unread = Array.from({ length: PAGES / 2 }, (_, i) => PAGES - 1 - i);
const hot = await hotBlobOf(image, [...common, ...unread]);
const lowerChunks = Math.floor(image.layers[0]!.blob.length / 65_536);
const order = orderOfChunks(
  image,
  [
    ...Array.from({ length: COMMON_CHUNKS }, (_, i) => i),
    ...Array.from({ length: Math.floor(lowerChunks * 0.4) }, (_, i) => lowerChunks - 5 - i),
  ].flatMap((chunk) => [0, chunk]),
);
const address = { host: 'registry.example', repository: 'app', digest: image.layers[0]!.digest };
const ADVICE: Readonly<Record<string, StartAdvice>> = {
  'a hot blob': {
    hot: { ...address, sizeBytes: hot.length },
    isExact: true,
    from: 'registry',
    order: undefined,
  },
  'a load order': { hot: undefined, isExact: true, from: 'registry', order: async () => order },
};

interface Measured {
  readonly ms: number;
  readonly sentBytes: number;
  readonly warnings: number;
}

/** Reads what a start reads, with this advice. */
async function measure(start: Start, advice: StartAdvice | undefined): Promise<Measured> {
  const link = new SeededLink(...LINK);
  const cache = await BlockCache.open(cacheDirectory(), ROOM);
  const sources = new Map(
    image.layers.map(({ digest, blob }) => {
      return [digest, link.carry(new BlobDouble(blob, 'registry.example/app', digest))];
    }),
  );
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
    readBlob: (_host: string, _repository: string, _blob: object, signal: AbortSignal) =>
      link.stream(hot, signal),
  };
  let warnings = 0;
  const starts = new ExpectedStarts({
    cache,
    client: client as never,
    hotImages: new HotImages(cache, client as never),
    advices: { find: async () => advice } as never,
    isUsed: true,
    log: pino({ level: 'warn' }, { write: () => warnings++ }),
  });
  const rest = { manifest: undefined, manifestType: '', loadOrder: undefined, wish: NO_WISH };
  const expected = { host: 'registry.example', repository: 'app', ...rest, layers };
  const device = { path: '/dev/a' };
  const begun = starts.opened(expected, true, device);
  const known = await begun.hot();
  const handle = await known?.open();
  const pages =
    handle &&
    new HotPages(
      new BlobReader(handle.share(), new OverflowChunks(), handle),
      known!.index,
      known!.indexBytes,
      known!.progress,
    );
  const blobs: OpenBlob[] = [];
  const opened = await openImage(
    {
      repoBlobUrl: 'https://registry.example/v2/app/blobs',
      lowers: image.layers.map(({ digest, blob, hashTree }) => {
        return { digest, size: blob.length, ...(hashTree && { hashTree }) };
      }),
    },
    {
      openBlob: async ({ digest }) => {
        const blob = await OpenBlob.open(cache, sources.get(digest)!);
        blobs.push(blob);
        return blob;
      },
      formats: LAYER_FORMATS,
      decoded: new DecodedBlocks(1 << 20),
      memory: UNLIMITED_INDEX_MEMORY,
      above: (digest, file) => {
        const runs = pages?.runsOf(digest);
        return pages === undefined || runs === undefined ? file : new HotFile(file, pages, runs);
      },
    },
  );
  const disk = Object.assign(opened.disk, { readWaitMs: READ_WAIT_MS });
  begun.guide({
    blobs: blobs.map(({ handle: each }) => each),
    reads: new ImageReads(),
    hasHotPages: pages !== undefined,
    onSetAside: () => {},
  });
  const random = randomOf(SEED);
  const read = async (page: number): Promise<void> => {
    const found = Buffer.alloc(PAGE_BYTES);
    await readFully(disk, found, page * PAGE_BYTES);
    assert.ok(found.equals(image.disk.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES)));
  };
  const before = link.sentBytes;
  const beganMs = performance.now();
  for (const page of common) await read(page);
  for (let run = 0; run < start.runs; run++) {
    const first = random(PAGES / 2 - start.pages);
    for (let page = first; page < first + start.pages; page++) await read(page);
    if (start.computesMs > 0) await sleep(start.computesMs);
  }
  const ms = performance.now() - beganMs;
  const sentBytes = link.sentBytes - before;
  starts.closed(begun, device);
  opened.close();
  handle?.close();
  await cache.close();
  return { ms, sentBytes, warnings };
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

for (const [how, start] of Object.entries(STARTS)) {
  for (const [what, advice] of Object.entries(ADVICE)) {
    test(`${what} of another start, and reads ${how} (seed ${SEED})`, async (t) => {
      const ratios: number[] = [];
      for (let pair = 0; pair < PAIRS; pair++) {
        // Side by side, so that a busy machine slows both.
        const [wrong, without] = await Promise.all([
          measure(start, advice),
          measure(start, undefined),
        ]);
        ratios.push(wrong.ms / without.ms);
        t.diagnostic(
          `${Math.round(wrong.ms)} and ${Math.round(without.ms)} ms, ${wrong.sentBytes} and ${without.sentBytes} bytes`,
        );
        assert.equal(wrong.warnings, 1);
        assert.ok(wrong.sentBytes < without.sentBytes + VAIN_BYTES_MAX, `${wrong.sentBytes} bytes`);
      }
      t.diagnostic(`wrong to without: ${median(ratios).toFixed(3)}, median of ${PAIRS} pairs`);
      assert.ok(median(ratios) <= RATIO_MAX, `${ratios}`);
    });
  }
}

/**
 * Goal: a layer reads the same with hot pages as without, however many have come, and asks its blob only for other pages.
 * Method: a layer in memory whose pages are "here" or not, and a file of hot pages that a test fills, damages or empties.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { ErrorCodes, ObdError } from '../errors.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { HotFile } from './hot-file.js';
import type { HotIndex } from './hot-index.js';
import { HotPages, type HotPagesFile, PAGE_BYTES, pagesAt } from './hot-pages.js';
import { HotProgress } from './hot-progress.js';

const PAGES = 64;
const DIGEST = `sha256:${'a'.repeat(64)}`;
const CONTENT = Buffer.from(
  Uint8Array.from({ length: PAGES * PAGE_BYTES - 1234 }, (_, i) => (i * 31 + (i >>> 8)) & 255),
);

/** The layer without hot pages. Its bytes are not here until they were loaded. */
class LayerDouble implements RandomAccessFile {
  readonly label = 'layer';
  readonly sizeBytes = CONTENT.length;
  readonly loads: [number, number][] = [];
  readonly #here = new Uint8Array(PAGES);

  tryRead(target: Uint8Array, offset: number): boolean {
    for (let at = offset; at < offset + target.length; at++) {
      if (this.#here[Math.floor(at / PAGE_BYTES)] === 0) return false;
    }
    target.set(CONTENT.subarray(offset, offset + target.length));
    return true;
  }

  async load(offset: number, length: number): Promise<void> {
    this.loads.push([offset, length]);
    const end = Math.ceil((offset + length) / PAGE_BYTES);
    this.#here.fill(1, Math.floor(offset / PAGE_BYTES), end);
  }

  invalidate(): boolean {
    return false;
  }

  close(): void {}
}

/** The cached file. */
class CachedDouble implements HotPagesFile {
  readonly label = 'hot pages';
  readonly sizeBytes: number;
  readonly bytes: Buffer;
  readonly #stored: Uint8Array;
  readonly #at: number;

  constructor(at: number, pages: number) {
    this.#at = at;
    this.sizeBytes = at + pages * PAGE_BYTES;
    this.bytes = Buffer.alloc(this.sizeBytes);
    this.#stored = new Uint8Array(pages);
  }

  put(slot: number, bytes: Uint8Array): void {
    this.bytes.fill(0, this.#at + slot * PAGE_BYTES, this.#at + (slot + 1) * PAGE_BYTES);
    this.bytes.set(bytes, this.#at + slot * PAGE_BYTES);
    this.#stored[slot] = 1;
  }

  isStored(offset: number, length: number): boolean {
    const first = (offset - this.#at) / PAGE_BYTES;
    return this.#stored.subarray(first, first + length / PAGE_BYTES).every((bit) => bit === 1);
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    if (!this.isStored(offset, target.length)) return false;
    target.set(this.bytes.subarray(offset, offset + target.length));
    return true;
  }

  async load(offset: number, length: number): Promise<void> {
    if (!this.isStored(offset, length)) throw new ObdError(ErrorCodes.FailedPrecondition, 'gone');
  }

  invalidate(offset: number, length: number): boolean {
    const first = (offset - this.#at) / PAGE_BYTES;
    this.#stored.fill(0, first, first + length / PAGE_BYTES);
    return true;
  }

  close(): void {}
}

const pageOf = (leaf: number) => {
  const page = Buffer.alloc(PAGE_BYTES);
  CONTENT.copy(page, 0, leaf * PAGE_BYTES);
  return page;
};

function scene(runs: readonly (readonly [leaf: number, count: number])[]) {
  const leaves = runs.flatMap(([leaf, count]) => Array.from({ length: count }, (_, i) => leaf + i));
  const index: HotIndex = {
    layers: [{ digest: DIGEST, root: DIGEST, leafedBytes: CONTENT.length }],
    runs: Uint32Array.from(runs.flatMap(([leaf, count]) => [0, leaf, count])),
    crcs: Uint32Array.from(leaves, (leaf) => rawCrc32c(pageOf(leaf), 0)),
    pages: leaves.length,
  };
  const cached = new CachedDouble(pagesAt(100), leaves.length);
  const progress = new HotProgress(leaves.length);
  const pages = new HotPages(cached, index, 100, progress);
  const layer = new LayerDouble();
  const file = new HotFile(layer, pages, pages.runsOf(DIGEST)!);
  const arrive = (from: number, to: number, perSecond = 1000) => {
    for (let slot = from; slot < to; slot++) cached.put(slot, pageOf(leaves[slot]!));
    progress.advance(to, perSecond);
  };
  return { file, layer, cached, progress, leaves, arrive };
}

async function assertReads(file: RandomAccessFile, offset: number, length: number): Promise<void> {
  const bytes = Buffer.alloc(length);
  await readFully(file, bytes, offset);
  assert.ok(bytes.equals(CONTENT.subarray(offset, offset + length)), `${length} at ${offset}`);
}

describe('HotFile', () => {
  test('reads any range right, and loads from the layer only what is not among its pages', async () => {
    const runs = fc
      .uniqueArray(fc.nat(PAGES - 1), { maxLength: 20, minLength: 1 })
      .map((leaves) => leaves.map((leaf) => [leaf, 1] as const));
    const ranges = fc.array(fc.tuple(fc.nat(CONTENT.length - 1), fc.nat(30_000)), { maxLength: 8 });
    const property = fc.asyncProperty(runs, fc.nat(20), ranges, async (all, come, reads) => {
      const { file, layer, progress, arrive, leaves } = scene(all);
      const arrived = Math.min(come, leaves.length);
      arrive(0, arrived);
      progress.end();
      for (const [offset, length] of reads) {
        await assertReads(file, offset, Math.min(length, CONTENT.length - offset));
      }
      const here = new Set(leaves.slice(0, arrived));
      for (const [offset, length] of layer.loads) {
        const end = Math.ceil((offset + length) / PAGE_BYTES);
        for (let leaf = Math.floor(offset / PAGE_BYTES); leaf < end; leaf++) {
          assert.ok(!here.has(leaf), `page ${leaf} was here`);
        }
      }
    });
    await fc.assert(property, { numRuns: 300 });
  });

  test('waits for a page that is about to come, and fetches one that is far off itself', async () => {
    const { file, layer, progress, arrive } = scene([
      [3, 2],
      [40, 8],
    ]);
    arrive(0, 1, 100);
    const near = assertReads(file, 4 * PAGE_BYTES, 100);
    await sleep(5);
    arrive(1, 2, 100);
    await near;
    assert.deepEqual(layer.loads, []);
    progress.advance(2, 1);
    await assertReads(file, 47 * PAGE_BYTES, 100);
    assert.deepEqual(layer.loads, [[47 * PAGE_BYTES, 100]]);
  });

  test('a stream that ends, or goes slower than it promised, holds no read up', async () => {
    const { file, layer, progress, arrive } = scene([[3, 4]]);
    arrive(0, 1, 1000);
    const startedMs = performance.now();
    const held = assertReads(file, 5 * PAGE_BYTES, 10);
    const ended = assertReads(file, 6 * PAGE_BYTES, 10);
    await sleep(20);
    progress.end();
    await Promise.all([held, ended]);
    assert.ok(performance.now() - startedMs < 200);
    assert.equal(layer.loads.length, 2);
  });

  test('a page that fails its CRC is dropped, and comes from the layer', async () => {
    const { file, layer, cached, arrive, progress } = scene([[7, 3]]);
    arrive(0, 3);
    progress.end();
    cached.bytes[pagesAt(100) + PAGE_BYTES + 5]! ^= 1;
    await assertReads(file, 7 * PAGE_BYTES, 3 * PAGE_BYTES);
    assert.deepEqual(layer.loads, [[7 * PAGE_BYTES, 3 * PAGE_BYTES]]);
    await assertReads(file, 7 * PAGE_BYTES, PAGE_BYTES);
    await assertReads(file, 8 * PAGE_BYTES, 10);
    assert.equal(layer.loads.length, 1);
  });

  test('counts each page once that reads have used', async () => {
    const { file, arrive, progress } = scene([
      [7, 3],
      [63, 1],
    ]);
    arrive(0, 4);
    await assertReads(file, 7 * PAGE_BYTES + 10, PAGE_BYTES);
    await assertReads(file, 7 * PAGE_BYTES + 10, 20);
    assert.equal(progress.read, 2);
    await assertReads(file, 63 * PAGE_BYTES, CONTENT.length - 63 * PAGE_BYTES);
    assert.equal(progress.read, 3);
  });
});

/**
 * Measures the cost of the formats: look-ups in a stack's index, the block codec compared with the npm packages, and
 * reads of a layer from a local file in the page cache. One JSON object per line on stdout.
 *
 *     npm run bench -- formats [--seconds N]
 *
 * The layer is 256 MiB of pages as in real layers: text-like, binary-like and incompressible ones. bench/whole-path.ts
 * measures the daemon; these figures give the formats' part of its time.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compressSync, uncompressSync } from 'lz4-napi';
import { compress, decompress } from 'zstd-napi';
import { ChunkSet } from '../src/cache/chunk-set.js';
import { HashingFile } from '../src/convert/hashing-file.js';
import { LayerBlobWriter } from '../src/convert/layer-blob-writer.js';
import { LocalFile } from '../src/io/local-file.js';
import { CHUNK_BYTES, type RandomAccessFile } from '../src/io/random-access-file.js';
import { LAYER_FORMATS } from '../src/layers/layer-formats.js';
import type { LowerLayer } from '../src/layers/lower-layer.js';
import { openLayer } from '../src/layers/open-layer.js';
import { LayerStack } from '../src/lsmt/layer-stack.js';
import { SegmentLookup } from '../src/lsmt/segment-lookup.js';
import { SegmentsBuilder } from '../src/lsmt/segments.js';
import {
  Algorithms,
  decodeBlocks,
  encodeBlocks,
  encodedBytesMax,
} from '../src/zfile/block-codec.js';
import { DecodedBlocks } from '../src/zfile/decoded-blocks.js';
import type { TreeAddress } from '../src/zfile/hash-tree.js';
import type { ZFileOptions } from '../src/zfile/zfile-writer.js';

const BLOCK = 4096;
const LAYER_BYTES = 256 << 20;
const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '2' } },
  allowPositionals: true,
});
const SECONDS = Number(values.seconds);

/** Seeded, so that two runs measure the same thing. */
let state = 12345;
function random(below: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

/** Calls `work`, which does `unit` things, for SECONDS, and prints how many it did per second. */
function measure(name: string, unit: string, perCall: number, work: () => void): void {
  for (const until = performance.now() + 200; performance.now() < until; ) work();
  const start = performance.now();
  let calls = 0;
  let elapsed = 0;
  while (elapsed < SECONDS * 1000) {
    for (let i = 0; i < 16; i++) work();
    calls += 16;
    elapsed = performance.now() - start;
  }
  const perSecond = Number(((calls * perCall * 1000) / elapsed).toPrecision(4));
  process.stdout.write(`${JSON.stringify({ bench: 'formats', name, unit, perSecond })}\n`);
}

/** A page of one of three kinds, in the proportions that bring lz4 to about a half. */
function fillPage(page: Buffer): void {
  const kind = random(10);
  if (kind < 2) for (let i = 0; i < page.length; i += 4) page.writeUInt32LE(random(2 ** 32), i);
  else if (kind < 6) for (let i = 0; i < page.length; i += 8) page.write(WORDS[random(64)]!, i);
  else for (let i = 0; i < page.length; i += 4) page.writeUInt32LE(random(200) * 0x1001, i);
}
const WORDS = Array.from({ length: 64 }, () =>
  random(2 ** 32)
    .toString(36)
    .padStart(8, 'e')
    .slice(-8),
);

function lookups(): void {
  const builder = new SegmentsBuilder();
  for (let i = 0; i < 100_000; i++) {
    const start = i * 160 + random(80);
    builder.add(start, start + 1 + random(80), random(2 ** 31), random(12));
  }
  const segments = builder.finish();
  const lookup = new SegmentLookup(segments);
  const sectors = Float64Array.from({ length: 1 << 16 }, () => random(16_000_000));
  let sum = 0;
  measure('lookup-100k-segments', 'lookups', sectors.length, () => {
    for (let i = 0; i < sectors.length; i++) sum += lookup.find(sectors[i]!);
  });
  if (sum < 0) throw new RangeError('never');
}

function codecs(): void {
  const blocks = 64;
  const plain = Buffer.alloc(blocks * BLOCK);
  for (let i = 0; i < blocks; i++) fillPage(plain.subarray(i * BLOCK, (i + 1) * BLOCK));
  const target = Buffer.alloc(plain.length);
  const stored = Buffer.alloc(encodedBytesMax(BLOCK, plain.length));
  const lengths = new Uint32Array(blocks);
  const offsets = new Uint32Array(blocks + 1);
  const pages = Array.from({ length: blocks }, (_, i) =>
    plain.subarray(i * BLOCK, (i + 1) * BLOCK),
  );
  for (const name of ['lz4', 'zstd'] as const) {
    const algorithm = Algorithms[name];
    const form = { algorithm, checked: true, blockBytes: BLOCK };
    const encode = () => encodeBlocks(algorithm, BLOCK, plain, plain.length, stored, lengths);
    const used = encode();
    for (let i = 0; i < blocks; i++) offsets[i + 1] = offsets[i]! + lengths[i]!;
    measure(`encode-${name}-addon`, 'blocks', blocks, encode);
    measure(`decode-${name}-addon`, 'blocks', blocks, () =>
      decodeBlocks(form, stored.subarray(0, used), offsets, 0, blocks, target, 0, plain.length),
    );
    measure(`decode-${name}-addon-one-by-one`, 'blocks', blocks, () => {
      for (let i = 0; i < blocks; i++) {
        const source = stored.subarray(offsets[i], offsets[i + 1]);
        decodeBlocks(form, source, offsets, i, 1, target, i * BLOCK, BLOCK);
      }
    });
    const pack = name === 'lz4' ? compressSync : (page: Buffer) => compress(page);
    const unpack = name === 'lz4' ? uncompressSync : decompress;
    const packed = pages.map((page) => pack(page));
    measure(`encode-${name}-npm`, 'blocks', blocks, () => {
      for (const page of pages) pack(page);
    });
    measure(`decode-${name}-npm`, 'blocks', blocks, () => {
      for (const [i, page] of packed.entries()) target.set(unpack(page), i * BLOCK);
    });
  }
}

/** Compressions that obdconv offers. */
const COMPRESSIONS = [
  ['lz4', 4],
  ['zstd', 4],
  ['zstd', 16],
  ['zstd', 32],
] as const;

async function reads(folder: string): Promise<void> {
  const raw = join(folder, 'raw');
  const stackOf = async (blob: RandomAccessFile, lower: LowerLayer) =>
    new LayerStack([
      await openLayer(blob, { formats: LAYER_FORMATS, decoded: new DecodedBlocks(8 << 20) }, lower),
    ]);
  for (const [algorithm, kib] of COMPRESSIONS) {
    const name = `layer-${algorithm}-${kib}k`;
    const path = join(folder, name);
    const hashTree = writeLayer(path, raw, { algorithm, blockBytes: kib * 1024 });
    const stack = await stackOf(LocalFile.open(path), {});
    const cached = new CachedFile(path);
    const proved = await stackOf(cached, { hashTree });
    proved.tryRead(Buffer.alloc(LAYER_BYTES), 0);
    readsOf(name, stack);
    readsOf(`${name}-proved`, proved);
    // As if all was fetched again before each read.
    cached.isStored = false;
    readInOrder(`${name}-proving`, proved);
    stack.close();
    proved.close();
  }
  const file = LocalFile.open(raw);
  readsOf('raw-file', file);
  file.close();
}

type Disk = Pick<LocalFile, 'tryRead'>;

function readsOf(name: string, disk: Disk): void {
  const page = Buffer.alloc(BLOCK);
  measure(`${name}-4k-random`, 'reads', 1, () => {
    disk.tryRead(page, random(LAYER_BYTES / BLOCK) * BLOCK);
  });
  measure(`${name}-4k-random-unaligned`, 'reads', 1, () => {
    disk.tryRead(page, random(LAYER_BYTES / BLOCK - 1) * BLOCK + 512);
  });
  readInOrder(name, disk);
}

function readInOrder(name: string, disk: Disk): void {
  const mega = Buffer.alloc(1 << 20);
  let at = 0;
  measure(`${name}-1m-sequential`, 'MiB', 1, () => {
    disk.tryRead(mega, at);
    at = (at + mega.length) % LAYER_BYTES;
  });
}

/** A local file whose chunks have versions, as a cached blob's do. */
class CachedFile implements RandomAccessFile {
  isStored = true;
  readonly #file: LocalFile;
  readonly #chunks: ChunkSet;

  constructor(path: string) {
    this.#file = LocalFile.open(path);
    this.#chunks = new ChunkSet(Math.ceil(this.sizeBytes / CHUNK_BYTES));
    for (let i = 0; i < this.#chunks.chunks; i++) this.#chunks.add(i);
  }

  get label(): string {
    return this.#file.label;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    return this.#file.tryRead(target, offset);
  }

  async load(): Promise<void> {}

  invalidate(): boolean {
    return false;
  }

  versionOf(chunk: number): number {
    return this.isStored ? this.#chunks.versionOf(chunk) : 0;
  }

  close(): void {
    this.#file.close();
  }
}

function writeLayer(path: string, raw: string, form: ZFileOptions): TreeAddress {
  const fd = openSync(raw, 'w');
  const blob = new HashingFile(path);
  const writer = new LayerBlobWriter(blob, form, { virtualBytes: LAYER_BYTES });
  const pages = Buffer.alloc(1 << 20);
  for (let i = 0; i < pages.length; i += BLOCK) fillPage(pages.subarray(i, i + BLOCK));
  for (let at = 0; at < LAYER_BYTES; at += pages.length) {
    pages.writeUInt32LE(at, 0);
    writer.layer.write(at, pages);
    writeSync(fd, pages);
  }
  const hashTree = writer.finish();
  blob.close();
  closeSync(fd);
  const ratio = Number((hashTree.offset / LAYER_BYTES).toPrecision(3));
  const name = `ratio-${form.algorithm}-${form.blockBytes / 1024}k`;
  process.stdout.write(`${JSON.stringify({ bench: 'formats', name, ratio })}\n`);
  return hashTree;
}

lookups();
codecs();
const folder = mkdtempSync(join(tmpdir(), 'obd-bench-'));
try {
  await reads(folder);
} finally {
  rmSync(folder, { recursive: true });
}

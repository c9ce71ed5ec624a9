/**
 * Goal: the metadata of a converted layer lie in the first bytes of its blob, as many as the converter says; small files of
 * a directory lie together. Any order covers the disk.
 * Method: a layer with large files between small ones is converted; its tree is then read through a file that notes how far
 * reads went. Random lists of files.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { tarOf } from '../../test/support/tar-builder.js';
import { Ext4FileSystem } from '../ext4/ext4-file-system.js';
import { ROOT_INODE } from '../ext4/superblock.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { LAYER_FORMATS } from '../layers/layer-formats.js';
import { openLayer } from '../layers/open-layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { ChangeSet } from './change-set.js';
import { ContentOrder } from './content-order.js';
import { LayerConverter } from './layer-converter.js';
import { WorkDirectory } from './work-directory.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-content-order-'));
after(() => rmSync(directory, { recursive: true }));

const DISK_BYTES = 1 << 30;
const DISK_BLOCKS = DISK_BYTES / 4096;
const LARGE_BYTES = 200_000;

/** A file of text that no codec makes much smaller. */
function content(seed: number, bytes: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length: bytes }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

const members = Array.from({ length: 60 }, (_, i) => [
  { name: `d${i % 5}/small-${i}`, content: content(i, 3000), mode: 0o644 },
  { name: `d${i % 5}/large-${i}`, content: content(i, LARGE_BYTES), mode: 0o644 },
  { name: `link-${i}`, type: '2', linkName: 'x'.repeat(100) },
]).flat();

interface Converted {
  readonly path: string;
  readonly sizeBytes: number;
  readonly metadataBytes: number;
}

async function convert(work: WorkDirectory): Promise<Converted> {
  const format = { algorithm: 'lz4', blockBytes: 4096, virtualBytes: DISK_BYTES } as const;
  const { signal } = new AbortController();
  const converter = new LayerConverter(work, format, LAYER_FORMATS, () => {}, signal);
  async function* tar(): AsyncGenerator<Uint8Array> {
    yield tarOf(members);
  }
  const layer = await converter.convert(tar(), 'layer', `sha256:${'a'.repeat(64)}`);
  converter.close();
  return layer;
}

/** The file of a layer, with the end of the furthest read since `furthest` was set to 0. */
class NotingFile implements RandomAccessFile {
  furthest = 0;
  readonly #file: LocalFile;
  constructor(path: string) {
    this.#file = LocalFile.open(path);
  }
  get label(): string {
    return this.#file.label;
  }
  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }
  tryRead(target: Uint8Array, offset: number): boolean {
    this.furthest = Math.max(this.furthest, offset + target.length);
    return this.#file.tryRead(target, offset);
  }
  async load(): Promise<void> {}
  invalidate(): boolean {
    return false;
  }
  close(): void {
    this.#file.close();
  }
}

async function openTree(file: NotingFile): Promise<Ext4FileSystem> {
  const decoded = new DecodedBlocks(1 << 20);
  const stack = new LayerStack([await openLayer(file, { formats: LAYER_FORMATS, decoded })]);
  return Ext4FileSystem.open(new ChangeSet(join(directory, 'tree'), DISK_BYTES, stack));
}

/** Names, attributes and targets of all nodes below the root. @returns How many. */
function walk(fs: Ext4FileSystem, inode: number): number {
  let nodes = 0;
  for (const { inode: child } of [...fs.entries(inode)]) {
    const { kind } = fs.stat(child);
    fs.xattrs(child);
    if (kind === 'symlink') fs.readLink(child);
    nodes += 1 + (kind === 'directory' ? walk(fs, child) : 0);
  }
  return nodes;
}

test('the first metadataBytes of a layer hold the whole tree', async () => {
  const work = new WorkDirectory(directory);
  const { path, sizeBytes, metadataBytes } = await convert(work);
  const file = new NotingFile(path);
  const fs = await openTree(file);
  file.furthest = 0;
  assert.equal(walk(fs, ROOT_INODE), members.length + 5 + 1);
  assert.ok(file.furthest > 0 && file.furthest <= metadataBytes, `${file.furthest}`);
  assert.ok(metadataBytes < sizeBytes / 50, `${metadataBytes} of ${sizeBytes}`);
  work.remove();
});

test('small files follow the metadata, directory by directory', async () => {
  const work = new WorkDirectory(directory);
  const { path, metadataBytes } = await convert(work);
  const file = new NotingFile(path);
  const fs = await openTree(file);
  const ends = [0, 1, 2, 3, 4].map((i) => {
    file.furthest = 0;
    const parent = fs.lookup(ROOT_INODE, Buffer.from(`d${i}`))!;
    for (let at = i; at < 60; at += 5) {
      const small = fs.lookup(parent, Buffer.from(`small-${at}`))!;
      fs.readFile(small, Buffer.alloc(3000), 0);
    }
    return file.furthest;
  });
  assert.deepEqual(
    [...ends].sort((a, b) => a - b),
    ends,
  );
  // 12 files of a block each, which does not compress.
  for (const [i, end] of ends.entries()) {
    assert.ok(end <= metadataBytes + (i + 1) * 13 * 4100, `${end - metadataBytes}`);
  }
  work.remove();
});

test('metadata() and contents() cover the disk, and metadata() no file', () => {
  const run = fc.record({
    directory: fc.integer({ min: 1, max: 4 }),
    physical: fc.integer({ min: 0, max: 990 }),
    count: fc.integer({ min: 1, max: 60 }),
  });
  fc.assert(
    fc.property(fc.array(run, { maxLength: 40 }), (files) => {
      const order = new ContentOrder();
      const isContent = new Set<number>();
      for (const { directory: parent, physical, count } of files) {
        order.add(parent, [{ logical: 0, physical, count, unwritten: false }]);
        for (let block = physical; block < physical + count; block++) isContent.add(block);
      }
      const seen = new Set<number>();
      for (const { start, count } of order.metadata(DISK_BLOCKS)) {
        for (let block = start; block < Math.min(start + count, 1100); block++) {
          assert.ok(!isContent.has(block) && !seen.has(block));
          seen.add(block);
        }
      }
      for (const { start, count } of order.contents()) {
        for (let block = start; block < start + count; block++) seen.add(block);
      }
      assert.equal(seen.size, 1100);
    }),
  );
});

/**
 * Goal: a ZFile with a hash tree never serves a block that the tree does not prove, and proves a block once for each version
 * of its stored bytes.
 * Method: a layer in memory whose bytes arrive and change; blocks made again with right CRCs, and proofs counted.
 */
import assert from 'node:assert/strict';
import { describe, mock, test } from 'node:test';
import { ArrivingFile } from '../../test/support/memory-file.js';
import { noisyPage, provedLayer } from '../../test/support/proved-layer.js';
import { ErrorCodes } from '../errors.js';
import { FileWindow } from '../io/file-window.js';
import { INDEX_REFETCHES_MAX, readFully } from '../io/random-access-file.js';
import { DecodedBlocks } from './decoded-blocks.js';
import { HashTree } from './hash-tree.js';
import { ZFileReader } from './zfile-reader.js';

const PAYLOAD_AT = 1536;
const PAGES = 300;
const { blob, hashTree } = provedLayer(PAGES, (page) => noisyPage(page, 1));
const other = provedLayer(PAGES, (page) => noisyPage(page, 2));

/** As a cached blob: its bytes have versions. */
class VersionedFile extends ArrivingFile {
  version = 1;

  versionOf(): number {
    return this.version;
  }
}

async function openProved(blobFile: ArrivingFile, change: (tree: HashTree) => void = () => {}) {
  const decoded = new DecodedBlocks(1 << 19);
  const tree = await HashTree.open(blobFile, hashTree, decoded);
  change(tree);
  const payload = new FileWindow(blobFile, PAYLOAD_AT, hashTree.offset - PAYLOAD_AT - 1024);
  const header = Buffer.from(blob.subarray(PAYLOAD_AT, PAYLOAD_AT + 512));
  const layout = ZFileReader.provedLayout(payload, header);
  const file = await ZFileReader.load(payload, layout, decoded, {
    tree,
    payloadAt: PAYLOAD_AT,
  });
  const proofs = mock.method(tree, 'firstWrong');
  return { file, proofs };
}

/** Where block `block` of a blob is stored. */
function storedAt(bytes: Buffer, block: number): { start: number; end: number } {
  const index = PAYLOAD_AT + Number(bytes.readBigUInt64LE(PAYLOAD_AT + 40));
  let start = PAYLOAD_AT + 512;
  for (let i = 0; i < block; i++) start += bytes.readUInt32LE(index + 4 * i);
  return { start, end: start + bytes.readUInt32LE(index + 4 * block) };
}

/** The blob with block 7 of the other layer in its place, CRC included. */
function exchanged(): Buffer {
  const changed = Buffer.from(blob);
  for (let block = 7; ; block++) {
    const own = storedAt(blob, block);
    const foreign = storedAt(other.blob, block);
    if (own.end - own.start !== foreign.end - foreign.start) continue;
    changed.set(other.blob.subarray(foreign.start, foreign.end), own.start);
    return changed;
  }
}

async function contentOf(file: ZFileReader): Promise<Buffer> {
  const content = Buffer.alloc(file.sizeBytes);
  await readFully(file, content, 0);
  return content;
}

describe('ZFileReader with a hash tree', () => {
  test('proves each block once, by whole reads and by parts', async () => {
    const { file, proofs } = await openProved(new ArrivingFile(blob));
    const content = await contentOf(file);
    assert.ok(content.subarray(4096, 8192).equals(noisyPage(0, 1)));
    const proved = proofs.mock.callCount();
    assert.ok(proved > 0);
    for (const [offset, length] of [
      [0, content.length],
      [5000, 100],
      [4096 * 20, 8192],
    ] as const) {
      const target = Buffer.alloc(length);
      assert.ok(file.tryRead(target, offset));
      assert.ok(target.equals(content.subarray(offset, offset + length)));
    }
    assert.equal(proofs.mock.callCount(), proved);
  });

  test('a warm read needs no byte of the tree', async () => {
    const source = new ArrivingFile(blob);
    const { file } = await openProved(source);
    const content = await contentOf(file);
    source.loads.length = 0;
    await file.load(0, content.length);
    assert.ok(source.loads.every(({ offset, length }) => offset + length <= hashTree.offset));
  });

  test('proves a block again when its bytes are another version', async () => {
    const source = new VersionedFile(blob);
    const { file, proofs } = await openProved(source);
    const content = await contentOf(file);
    const proved = proofs.mock.callCount();
    const target = Buffer.alloc(8192);
    assert.ok(file.tryRead(target, 8192));
    assert.equal(proofs.mock.callCount(), proved);
    source.version = 2;
    source.bytes.set(exchanged(), 0);
    await assert.rejects(
      async () => {
        // Nothing better arrives.
        source.invalidate = () => false;
        await readFully(file, Buffer.alloc(file.sizeBytes), 0);
      },
      { code: ErrorCodes.Corrupt, message: /hash tree/ },
    );
    source.bytes.set(blob, 0);
    source.version = 3;
    assert.ok((await contentOf(file)).equals(content));
    assert.ok(proofs.mock.callCount() > proved);
  });

  test('proves bytes without a version on every read', async () => {
    const source = new VersionedFile(blob);
    source.version = 0;
    const { file, proofs } = await openProved(source);
    const content = await contentOf(file);
    for (let i = 0; i < 3; i++) {
      const before = proofs.mock.callCount();
      const target = Buffer.alloc(4096);
      assert.ok(file.tryRead(target, 4096 * 9));
      assert.ok(target.equals(content.subarray(4096 * 9, 4096 * 10)));
      assert.equal(proofs.mock.callCount(), before + 1);
    }
  });

  test('does not keep a proof of bytes that changed while they were read', async () => {
    const source = new VersionedFile(blob);
    const { file, proofs } = await openProved(source);
    await contentOf(file);
    const read = source.tryRead.bind(source);
    source.tryRead = (target, offset) => {
      source.version++;
      return read(target, offset);
    };
    for (let i = 0; i < 3; i++) {
      const before = proofs.mock.callCount();
      assert.ok(file.tryRead(Buffer.alloc(4096), 4096 * 9));
      assert.equal(proofs.mock.callCount(), before + 1);
    }
  });

  test('fetches again a whole valid block in the place of another, and only that one', async () => {
    const damaged = exchanged();
    const source = new ArrivingFile(blob, damaged);
    const { file } = await openProved(source);
    const content = await contentOf(file);
    for (let page = 0; page < PAGES; page++) {
      const at = (page + 1) * 4096;
      assert.ok(content.subarray(at, at + 4096).equals(noisyPage(page, 1)), `page ${page}`);
    }
    assert.equal(source.forgets.length, 1);
    const [{ offset, length }] = source.forgets as [{ offset: number; length: number }];
    const isBlock = storedAt(blob, 7).start <= offset && length < 4096 + 516;
    assert.ok(isBlock, `${offset} ${length}`);
  });

  test('fetches an index again that the tree does not prove, whatever its CRC', async () => {
    const source = new ArrivingFile(blob);
    await assert.rejects(
      openProved(source, (tree) => {
        tree.header.indexHash[0]! ^= 1;
      }),
      { code: ErrorCodes.Corrupt, message: /index/ },
    );
    const index = PAYLOAD_AT + Number(blob.readBigUInt64LE(PAYLOAD_AT + 40));
    assert.deepEqual(
      source.forgets.map(({ offset }) => offset),
      Array.from({ length: INDEX_REFETCHES_MAX }, () => index),
    );
  });
});

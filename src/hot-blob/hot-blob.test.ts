/**
 * Goal: a hot blob gives back the pages that were put in, in their order; a reader accepts no blob of other layers, and
 * no end, cut or bomb in place of a page.
 * Method: layers of many shapes and one as obdconv writes it; a program that was written from the format's page alone;
 * blobs changed by hand.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { distinctBytes } from '../../test/support/blob-double.js';
import { hotSource, joined, piecesOf } from '../../test/support/hot-source.js';
import { MemoryFile } from '../../test/support/memory-file.js';
import { noisyPage, provedLayer } from '../../test/support/proved-layer.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { FileWindow } from '../io/file-window.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { HashTree } from '../zfile/hash-tree.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { type HotPages, readHotBlob } from './hot-blob-reader.js';
import { type HotSource, writeHotBlob } from './hot-blob-writer.js';
import type { HotIndex } from './hot-index.js';

const SCRIPT = join(import.meta.dirname, '../../../test/support/hot_blob.py');
const noPython =
  spawnSync('python3', ['--version']).status === 0 ? false : 'there is no python3 to compare with';

const PAGE = 4096;
/** 3 bottom nodes and a top one, with a short last leaf. */
const large = await hotSource(distinctBytes(299 * PAGE + 77, 1));
const single = await hotSource(distinctBytes(100, 2));
const middle = await hotSource(distinctBytes(40 * PAGE, 3));

const write = (sources: readonly HotSource[], runs: readonly number[]) =>
  joined(writeHotBlob(sources, Uint32Array.from(runs)));

interface Read {
  readonly index: HotIndex;
  readonly pages: Buffer;
  /** Pages of each batch. */
  readonly batches: readonly number[];
}

async function read(
  blob: Uint8Array,
  layers: readonly { digest: string; root: string | undefined }[],
  pieceBytes?: number,
): Promise<Read> {
  let index: HotIndex | undefined;
  const parts: Buffer[] = [];
  for await (const part of readHotBlob(piecesOf(blob, pieceBytes), layers, 'hot')) {
    if (isIndex(part)) index = part;
    else {
      assert.equal(part.slot, parts.reduce((sum, { length }) => sum + length, 0) / PAGE);
      parts.push(part.bytes);
    }
  }
  const batches = parts.map(({ length }) => length / PAGE);
  return { index: index!, pages: Buffer.concat(parts), batches };
}

const isIndex = (part: HotIndex | HotPages): part is HotIndex => 'runs' in part;

/** The pages of runs, with zeroes behind a short last one. */
function expected(sources: readonly HotSource[], runs: readonly number[]): Buffer {
  const parts: Buffer[] = [];
  for (let run = 0; run < runs.length; run += 3) {
    const file = sources[runs[run]!]!.file;
    const pages = Buffer.alloc(runs[run + 2]! * PAGE);
    const at = runs[run + 1]! * PAGE;
    assert.ok(file.tryRead(pages.subarray(0, file.sizeBytes - at), at));
    parts.push(pages);
  }
  return Buffer.concat(parts);
}

const sources = [large, single, middle];
const runs = [0, 120, 20, 2, 30, 10, 1, 0, 1, 0, 260, 40, 2, 0, 1, 0, 0, 100, 2, 5, 2];

describe('a hot blob', () => {
  test('gives the pages of several layers in their order, in pieces of any size', async () => {
    const blob = await write(sources, runs);
    for (const pieceBytes of [777, 70_000, 1 << 24]) {
      const { index, pages, batches } = await read(blob, sources, pieceBytes);
      assert.ok(pages.equals(expected(sources, runs)));
      assert.ok(batches.every((count, i) => count === 32 || i === batches.length - 1));
      // Layers are numbered in the order of first use.
      assert.deepEqual(
        index.layers.map(({ digest, root, leafedBytes }) => [digest, root, leafedBytes]),
        [large, middle, single].map(({ digest, root, file }) => [digest, root, file.sizeBytes]),
      );
      assert.deepEqual([...index.runs.subarray(0, 9)], [0, 120, 20, 1, 30, 10, 2, 0, 1]);
    }
  });

  test('holds each node once, in front of the first page that needs it', async () => {
    const content = zstdDecompressSync(await write([large], [0, 127, 2, 0, 5, 1, 0, 299, 1]));
    const indexBytes = 32 + 72 + 3 * 12 + 5 * 4;
    const tree = large.tree;
    const pages = expected([large], [0, 127, 2, 0, 5, 1, 0, 299, 1]);
    const parts = [
      tree.headerBytes,
      await tree.readNode(1, 0),
      await tree.readNode(0, 0),
      pages.subarray(0, PAGE),
      await tree.readNode(0, 1),
      pages.subarray(PAGE, 3 * PAGE),
      await tree.readNode(0, 2),
      pages.subarray(3 * PAGE),
    ];
    assert.ok(content.subarray(indexBytes).equals(Buffer.concat(parts)));
    // The last page is padded.
    assert.ok(content.subarray(-PAGE + 77).every((byte) => byte === 0));
  });

  test('is what an independent program reads by docs/formats/hot-blob.md', {
    skip: noPython,
  }, async () => {
    const blob = await write(sources, runs);
    const input = zstdDecompressSync(blob);
    const { stdout, stderr } = spawnSync('python3', [SCRIPT], { input, encoding: 'utf8' });
    const { index, pages } = await read(blob, sources);
    const hex = (name: string) => name.slice('sha256:'.length);
    const lines = index.layers.map(({ digest, root, leafedBytes }) => {
      return `layer ${hex(digest)} ${hex(root)} ${leafedBytes}\n`;
    });
    for (let run = 0; run < index.runs.length; run += 3) {
      lines.push(`run ${index.runs.subarray(run, run + 3).join(' ')}\n`);
    }
    lines.push(`pages ${createHash('sha256').update(pages).digest('hex')}\n`);
    assert.equal(stdout, lines.join(''), stderr);
  });

  test('has the same content as blobs of earlier builds', async () => {
    const content = zstdDecompressSync(await write(sources, runs));
    const found = createHash('sha256').update(content).digest('hex');
    assert.equal(found, '63187d6d3612a0f49ab7483f8c72a235836ffe4d4404304e08faa1e9b54e0a53');
  });

  test('gives the pages of a layer that obdconv wrote', async () => {
    const { blob, hashTree } = provedLayer(600, (page) => noisyPage(page, 1));
    const decoded = new DecodedBlocks(1 << 19);
    const file = new MemoryFile(blob);
    const tree = await HashTree.open(file, hashTree, decoded);
    const payload = new FileWindow(file, 1536, hashTree.offset - 1536 - 1024);
    const layout = await ZFileReader.readLayout(payload);
    const layer = await ZFileReader.load(payload, layout, decoded, { tree, payloadAt: 1536 });
    const source = { digest: large.digest, root: hashTree.root, file: layer, tree };
    const last = Math.ceil(layer.sizeBytes / PAGE) - 1;
    const spread = Array.from({ length: 100 }, (_, i) => [0, (i * 37) % last, 1]).flat();
    const { pages } = await read(await write([source], spread), [source]);
    assert.ok(pages.equals(expected([source], spread)));
  });

  test('is one frame with the size of its content, and the same in each run', async () => {
    for (const count of [1, 2, 40]) {
      const blob = await write([middle], [0, 0, count]);
      // RFC 8878, 3.1.1.1.1: the descriptor of a frame without dictionary, with a size.
      assert.equal(blob[4]! & 0b11, 0);
      assert.notEqual(blob[4]! >> 5, 0);
      assert.equal(blob.lastIndexOf(Buffer.from('28b52ffd', 'hex')), 0);
      assert.ok(blob.equals(await write([middle], [0, 0, count])));
    }
  });
});

describe('writeHotBlob()', () => {
  const refused = { code: ErrorCodes.InvalidArgument };

  test('refuses runs that overlap, pass a layer, or are of none', async () => {
    await assert.rejects(write(sources, [0, 0, 2, 0, 1, 1]), { ...refused, message: /two runs/ });
    await assert.rejects(write(sources, [0, 299, 2]), { ...refused, message: /end/ });
    await assert.rejects(write(sources, [3, 0, 1]), { ...refused, message: /3 given/ });
    await assert.rejects(write(sources, [0, 1]), { ...refused });
    await assert.rejects(write(sources, []), { ...refused, message: /0 pages/ });
    await assert.rejects(write(sources, [0, 0, 2 ** 32 - 1]), { ...refused, message: /pages/ });
    await assert.rejects(write([middle, middle], [0, 0, 1, 1, 0, 1]), { ...refused });
  });

  test('refuses a page that the tree does not prove, and one that changes between the passes', async () => {
    const bytes = Buffer.alloc(middle.file.sizeBytes);
    middle.file.tryRead(bytes, 0);
    bytes[7 * PAGE]! ^= 1;
    const wrong = { ...middle, file: new MemoryFile(bytes) };
    const corrupt = { code: ErrorCodes.Corrupt };
    await assert.rejects(write([wrong], [0, 0, 10]), { ...corrupt, message: /28672: .*proves/ });
    bytes[7 * PAGE]! ^= 1;
    const tryRead = wrong.file.tryRead.bind(wrong.file);
    let reads = 0;
    wrong.file.tryRead = (target, offset) => {
      if (++reads === 2) bytes[7 * PAGE]! ^= 1;
      return tryRead(target, offset);
    };
    await assert.rejects(write([wrong], [0, 0, 10]), { ...corrupt, message: /28672: .*changed/ });
  });
});

describe('readHotBlob()', () => {
  const corrupt = { code: ErrorCodes.Corrupt };

  test('refuses a blob of a layer that the image does not name, or names without this root', async () => {
    const blob = await write([middle, single], [0, 0, 1, 1, 0, 1]);
    const { digest } = middle;
    for (const other of [{ digest, root: large.root }, { digest, root: undefined }, large]) {
      const pieces = readHotBlob(piecesOf(blob), [single, other], 'hot');
      await assert.rejects(pieces.next(), { ...corrupt, message: /does not name/ });
    }
    await read(blob, [single, { digest, root: undefined }, middle]);
  });

  test('refuses a cut blob, and yields only whole batches before', async () => {
    const blob = await write(sources, runs);
    for (const bytes of [0, 3, 20, 5000, blob.length - 1]) {
      const cut = blob.subarray(0, bytes);
      await assert.rejects(read(cut, sources), { ...corrupt, message: /too early/ }, `${bytes}`);
    }
    const content = zstdDecompressSync(blob).subarray(0, -1);
    await assert.rejects(read(zstdCompressSync(content), sources), {
      ...corrupt,
      message: /content ends too early/,
    });
  });

  test('refuses everything behind the last page', async () => {
    const blob = await write([middle], [0, 0, 40]);
    const refusals = /follow the zstd frame|behind its end|prefix/;
    for (const tail of [Buffer.from('x'), Buffer.alloc(9), blob]) {
      const longer = Buffer.concat([blob, tail]);
      for (const pieceBytes of [1000, blob.length, longer.length]) {
        await assert.rejects(read(longer, [middle], pieceBytes), { ...corrupt, message: refusals });
      }
    }
    // Frames without content are refused too, within a piece.
    for (const tail of [
      zstdCompressSync(Buffer.alloc(0)),
      Buffer.from('502a4d1803000000616263', 'hex'),
    ]) {
      const longer = Buffer.concat([blob, tail]);
      await assert.rejects(read(longer, [middle], 1 << 20), { ...corrupt, message: refusals });
    }
    const content = Buffer.concat([zstdDecompressSync(blob), Buffer.alloc(1)]);
    await assert.rejects(read(zstdCompressSync(content), [middle]), {
      ...corrupt,
      message: /behind its end/,
    });
  });

  test('refuses bytes that are no zstd, and a window that is too large', async () => {
    await assert.rejects(read(distinctBytes(9000), sources), { ...corrupt, message: /prefix/ });
    const blob = await write([middle], [0, 0, 40]);
    const wide = zstdCompressSync(zstdDecompressSync(blob), {
      params: { [constants.ZSTD_c_windowLog]: 27, [constants.ZSTD_c_contentSizeFlag]: 0 },
    });
    // RFC 8878, 3.1.1.1.2: the exponent of the window is in the upper 5 bits, less 10.
    wide[5] = (27 - 10) << 3;
    await assert.rejects(read(wide, [middle]), { ...corrupt, message: /indow/ });
  });

  test('reads only a few pieces of a bomb', async () => {
    const blob = await write([middle], [0, 0, 40]);
    const content = zstdDecompressSync(blob);
    const bomb = zstdCompressSync(Buffer.concat([content, Buffer.alloc(256 << 20)]));
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(read(bomb, [middle]), { ...corrupt, message: /behind its end/ });
    assert.ok(process.memoryUsage().arrayBuffers - before < 64 << 20);
    // A head that promises the largest index, and then nothing but zeroes.
    const head = Buffer.from(content.subarray(0, 32));
    head.writeUInt32LE(32768, 24);
    const endless = zstdCompressSync(Buffer.concat([head, Buffer.alloc(256 << 20)]));
    await assert.rejects(read(endless, [middle]), { ...corrupt, message: /CRC/ });
  });

  test("passes the source's error on, and ends the source when reading ends early", async () => {
    const blob = await write(sources, runs);
    const oops = new ObdError(ErrorCodes.Unavailable, 'gone');
    let ended = 0;
    async function* failing(): AsyncGenerator<Uint8Array> {
      try {
        yield* piecesOf(blob.subarray(0, 400_000));
        throw oops;
      } finally {
        ended++;
      }
    }
    await assert.rejects(async () => {
      for await (const _ of readHotBlob(failing(), sources, 'hot'));
    }, oops);
    for await (const _ of readHotBlob(failing(), sources, 'hot')) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(ended, 2);
  });
});

/**
 * Goal: what is written is what upstream writes and reads. Method: the published bytes of a small
 * file, and the rules of its reader on blocks that do not compress.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MemoryFile, MemorySink } from '../../test/support/memory-file.js';
import { vectorBytes, vectorsMissing } from '../../test/support/vectors.js';
import { layerContent, openZFile, ZFILE_FORMS, zfileOf } from '../../test/support/zfile-samples.js';
import { ErrorCodes } from '../errors.js';
import { Algorithms } from './block-codec.js';
import { DecodedBlocks } from './decoded-blocks.js';
import { hasZFileMagic } from './zfile-magic.js';
import { ZFileWriter } from './zfile-writer.js';

describe('ZFileWriter', () => {
  test('gives an empty file header, trailer and nothing between', () => {
    const file = zfileOf(new Uint8Array(), { algorithm: 'lz4', blockBytes: 4096 });
    assert.equal(file.length, 1024);
    assert.equal(file.readUInt32LE(32), 0x1b);
    assert.equal(file.readUInt32LE(512 + 32), 0x16);
  });

  test('writes the same bytes however its input is cut', () => {
    const cut = fc.integer({ min: 1, max: 300_000 });
    fc.assert(
      fc.property(fc.constantFrom(...ZFILE_FORMS), layerContent(900_000), cut, (form, all, n) => {
        assert.ok(zfileOf(all, form, n).equals(zfileOf(all, form)));
      }),
      { numRuns: 40 },
    );
  });

  test('is not a file that opens until finish()', () => {
    const sink = new MemorySink();
    new ZFileWriter(sink, { algorithm: 'lz4', blockBytes: 4096 }).write(new Uint8Array(300_000));
    assert.ok(hasZFileMagic(sink.written));
    assert.equal(sink.written.readUInt32LE(32), 0x13, 'provisional');
    assert.equal(sink.written.readBigUInt64LE(56), 0n);
  });

  test('refuses 64 KiB blocks that upstream could not read, and takes smaller ones', () => {
    const noise = randomBytes(200_000);
    for (const algorithm of ['lz4', 'zstd'] as const) {
      assert.throws(() => zfileOf(noise, { algorithm, blockBytes: 65536 }), {
        code: ErrorCodes.Unsupported,
      });
      const file = zfileOf(noise, { algorithm, blockBytes: 32768 });
      const at = Number(file.readBigUInt64LE(40));
      for (let i = 0; i < Math.ceil(200_000 / 32768); i++) {
        assert.ok(file.readUInt32LE(at + 4 * i) < 65535, 'upstream adds lengths up in 16 bits');
      }
    }
  });

  for (const name of ['l1.lz4.16k.commit', 'zfile/70000.zstd.zf']) {
    test(`writes upstream’s ${name} again, byte for byte`, { skip: vectorsMissing }, async (t) => {
      const original = vectorBytes(name);
      const file = await openZFile(new MemoryFile(original), new DecodedBlocks(1 << 19));
      const content = Buffer.alloc(file.sizeBytes);
      assert.ok(file.tryRead(content, 0));
      const algorithm = file.layout.algorithm === Algorithms.lz4 ? 'lz4' : 'zstd';
      const written = zfileOf(content, { algorithm, blockBytes: file.layout.blockBytes });
      const first = 512 + original.readUInt32LE(file.layout.indexOffset);
      if (!written.subarray(512, first).equals(original.subarray(512, first))) {
        return t.skip('the compression library here has other output than upstream’s');
      }
      const from = name.endsWith('.zf') ? 512 : 0; // that tool leaves its header provisional
      assert.ok(written.subarray(from).equals(original.subarray(from)));
    });
  }

  test('refuses an invalid block size', () => {
    for (const blockBytes of [0, 512, 4095, 12288, 131072, Number.NaN]) {
      assert.throws(() => new ZFileWriter(new MemorySink(), { algorithm: 'lz4', blockBytes }), {
        code: ErrorCodes.InvalidArgument,
      });
    }
  });
});

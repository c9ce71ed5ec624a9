/**
 * Goal: the add-on's blocks are everybody's blocks, and no input makes it touch a byte outside the
 * range it was given. Method: lz4-napi and zstd-napi as the reference, both ways; damaged blocks
 * between guard bytes.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { compressSync, uncompressSync } from 'lz4-napi';
import { compress, decompress } from 'zstd-napi';
import { loadNativeAddon } from '../io/native-addon.js';
import {
  type Algorithm,
  Algorithms,
  CHECKSUM_BYTES,
  decodeBlocks,
  encodeBlocks,
  encodedBytesMax,
} from './block-codec.js';
import { rawCrc32c } from './raw-crc32c.js';

const BLOCK_SEED = 100007;
const ALGORITHMS: readonly Algorithm[] = ['lz4', 'zstd'];
const REFERENCE = {
  lz4: {
    encode: (bytes: Buffer): Buffer => compressSync(bytes).subarray(4),
    decode: (stored: Buffer, length: number): Buffer => {
      const size = Buffer.alloc(4);
      size.writeUInt32LE(length);
      return uncompressSync(Buffer.concat([size, stored]));
    },
  },
  zstd: {
    encode: (bytes: Buffer): Buffer => compress(bytes, { compressionLevel: 3 }),
    decode: (stored: Buffer): Buffer => decompress(stored),
  },
} as const;

/** Bytes as layers have them: runs, repeats and noise. */
const content = fc
  .array(
    fc.oneof(
      fc
        .record({ byte: fc.nat(255), count: fc.nat(3000) })
        .map((r) => Buffer.alloc(r.count, r.byte)),
      fc.uint8Array({ maxLength: 3000, size: 'max' }).map((noise) => Buffer.from(noise)),
    ),
    { minLength: 1, maxLength: 8 },
  )
  .map((parts) => Buffer.concat([...parts, Buffer.from([1])]));

function withChecksum(stored: Buffer): Buffer {
  const crc = Buffer.alloc(CHECKSUM_BYTES);
  crc.writeUInt32LE(rawCrc32c(stored, BLOCK_SEED));
  return Buffer.concat([stored, crc]);
}

for (const algorithm of ALGORITHMS) {
  const id = Algorithms[algorithm];

  describe(`${algorithm} blocks`, () => {
    test('from encodeBlocks() decode with the reference library', () => {
      fc.assert(
        fc.property(content, (bytes) => {
          const target = Buffer.alloc(encodedBytesMax(4096, bytes.length));
          const lengths = new Uint32Array(Math.ceil(bytes.length / 4096));
          const used = encodeBlocks(id, 4096, bytes, bytes.length, target, lengths);
          let at = 0;
          for (const [i, length] of lengths.entries()) {
            const plain = bytes.subarray(i * 4096, (i + 1) * 4096);
            const stored = target.subarray(at, at + length - CHECKSUM_BYTES);
            assert.deepEqual(REFERENCE[algorithm].decode(stored, plain.length), plain);
            assert.deepEqual(withChecksum(stored), target.subarray(at, at + length));
            at += length;
          }
          assert.equal(at, used);
        }),
        { numRuns: 50 },
      );
    });

    test('from the reference library decode with decodeBlocks()', () => {
      fc.assert(
        fc.property(content, fc.boolean(), (bytes, checked) => {
          const count = Math.ceil(bytes.length / 8192);
          const offsets = new Uint32Array(count + 1);
          const stored: Buffer[] = [];
          for (let i = 0; i < count; i++) {
            const block = REFERENCE[algorithm].encode(bytes.subarray(i * 8192, (i + 1) * 8192));
            stored.push(checked ? withChecksum(block) : block);
            offsets[i + 1] = offsets[i]! + stored[i]!.length;
          }
          const target = Buffer.alloc(bytes.length);
          const form = { algorithm: id, checked, blockBytes: 8192 };
          const source = Buffer.concat(stored);
          const bad = decodeBlocks(form, source, offsets, 0, count, target, 0, bytes.length);
          assert.equal(bad, -1);
          assert.ok(target.equals(bytes));
        }),
        { numRuns: 50 },
      );
    });

    test('when damaged are named by number, or decode; nothing outside the target changes', () => {
      const damage = fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.nat(20) });
      fc.assert(
        fc.property(content, damage, fc.boolean(), (bytes, { at, byte, cut }, checked) => {
          const plain = bytes.subarray(0, 4096);
          const whole = REFERENCE[algorithm].encode(plain);
          const stored = Buffer.from(checked ? withChecksum(whole) : whole);
          stored[at % stored.length] = byte;
          const length = Math.max(0, stored.length - cut);
          const target = Buffer.alloc(plain.length + 128, 0xa5);
          const form = { algorithm: id, checked, blockBytes: 4096 };
          const offsets = Uint32Array.of(0, length);
          const bad = decodeBlocks(form, stored, offsets, 0, 1, target, 64, plain.length);
          assert.ok(bad === 0 || bad === -1);
          if (checked && bad === -1) {
            assert.ok(target.subarray(64, 64 + plain.length).equals(plain));
          }
          const guard = Buffer.alloc(64, 0xa5);
          assert.ok(target.subarray(0, 64).equals(guard) && target.subarray(-64).equals(guard));
        }),
        { numRuns: 500 },
      );
    });
  });
}

describe('decodeBlocks()', () => {
  const form = { algorithm: Algorithms.lz4, checked: false, blockBytes: 4096 };
  const call = (source: number, offsets: number[], first: number, count: number, bytes: number) =>
    decodeBlocks(
      form,
      new Uint8Array(source),
      Uint32Array.from(offsets),
      first,
      count,
      new Uint8Array(8192),
      0,
      bytes,
    );

  test('refuses arguments that would take it out of its buffers', () => {
    assert.throws(() => call(8, [0, 9], 0, 1, 4096), RangeError, 'past the source');
    assert.throws(() => call(8, [4, 2], 0, 1, 4096), RangeError, 'descending offsets');
    assert.throws(() => call(8, [0, 8], 0, 2, 8192), RangeError, 'more blocks than offsets');
    assert.throws(() => call(8, [0, 4, 8], 0, 2, 4096), RangeError, 'fewer bytes than blocks');
    assert.throws(() => call(8, [0, 4, 8], 0, 1, 4097), RangeError, 'more bytes than blocks');
    assert.throws(() => call(8, [0, 4, 8, 9], 0, 3, 8193), RangeError, 'past the target');
    assert.throws(() => call(8, [0, 4], -1, 1, 4096), RangeError);
  });

  test('counts an empty block as bad', () => {
    assert.equal(call(8, [0, 0], 0, 1, 4096), 0);
  });
});

test('the add-on refuses arguments of another type', () => {
  const addon = loadNativeAddon('zfile-codec', 'zfile_codec') as Record<
    string,
    (...args: unknown[]) => unknown
  >;
  const decode: unknown[] = [
    1,
    false,
    4096,
    new Uint8Array(8),
    Uint32Array.of(0, 8),
    0,
    1,
    Buffer.alloc(4096),
    0,
    4096,
  ];
  const encode: unknown[] = [
    1,
    4096,
    Buffer.alloc(4096),
    4096,
    Buffer.alloc(8192),
    new Uint32Array(1),
  ];
  const boundaries: unknown[] = [new Uint8Array(4), new Uint32Array(2), 0, 9];
  for (const [name, args] of Object.entries({ decode, encode, boundaries })) {
    assert.doesNotThrow(() => addon[name]?.(...args), name);
    for (const i of args.keys()) {
      const wrong = [undefined, 'text', {}, new Float32Array(9)];
      for (const value of wrong) {
        assert.throws(() => addon[name]?.(...args.with(i, value)), TypeError, `${name} ${i}`);
      }
    }
    assert.throws(() => addon[name]?.(), TypeError);
  }
});

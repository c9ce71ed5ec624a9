/**
 * Goal: a ZFile reads as what it was made from, in any ranges, from bytes that are here or arrive;
 * and no damage ever gives wrong bytes, or anything but an ObdError.
 * Method: round trips through every form, upstream's files, then damage of every kind.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ArrivingFile, MemoryFile } from '../../test/support/memory-file.js';
import { vectorBytes, vectorsMissing } from '../../test/support/vectors.js';
import { layerContent, openZFile, ZFILE_FORMS, zfileOf } from '../../test/support/zfile-samples.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { DecodedBlocks } from './decoded-blocks.js';

const decoded = new DecodedBlocks(1 << 19);
const LZ4_4K = { algorithm: 'lz4', blockBytes: 4096 } as const;

async function contentOf(stored: Uint8Array): Promise<Buffer> {
  const file = await openZFile(new MemoryFile(stored, 'sample.zf'), decoded);
  const content = Buffer.alloc(file.sizeBytes);
  assert.ok(file.tryRead(content, 0));
  return content;
}

describe('ZFileReader', () => {
  test('reads any range of any form', async () => {
    const ranges = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(200_000)));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ZFILE_FORMS),
        layerContent(400_000),
        ranges,
        async (form, content, wanted) => {
          const file = await openZFile(new MemoryFile(zfileOf(content, form)), decoded);
          assert.equal(file.sizeBytes, content.length);
          for (const [where, lengthMax] of [[0, content.length] as const, ...wanted]) {
            const offset = Math.floor(where * content.length);
            const length = Math.min(lengthMax, content.length - offset);
            const target = Buffer.alloc(length, 0xee);
            assert.ok(file.tryRead(target, offset));
            assert.ok(target.equals(content.subarray(offset, offset + length)), `${offset}`);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('reads blocks that share the cache with those of another file', async () => {
    const contents = [Buffer.alloc(100_000, 1), Buffer.alloc(100_000, 2)];
    const files = await Promise.all(
      contents.map((c) => openZFile(new MemoryFile(zfileOf(c, LZ4_4K)), decoded)),
    );
    for (let at = 1; at < 90_000; at += 2500) {
      for (const [i, file] of files.entries()) {
        const target = Buffer.alloc(10);
        assert.ok(file.tryRead(target, at));
        assert.deepEqual(target, contents[i]!.subarray(at, at + 10));
      }
    }
  });

  test('a range outside the file is a bug of the caller', async () => {
    const file = await openZFile(new MemoryFile(zfileOf(Buffer.alloc(9), LZ4_4K)), decoded);
    assert.throws(() => file.tryRead(Buffer.alloc(10), 0), RangeError);
    assert.throws(() => file.tryRead(Buffer.alloc(1), -1), RangeError);
    await assert.rejects(file.load(0, 10), RangeError);
  });
});

describe('ZFileReader on bytes that arrive', () => {
  const content = Buffer.alloc(600_000, 'a layer’s content, more or less ');
  const stored = zfileOf(content, LZ4_4K);

  test('loads exactly the stored bytes of the blocks wanted, in one call', async () => {
    const source = new ArrivingFile(stored);
    const file = await openZFile(source, decoded);
    source.loads.length = 0;
    const target = Buffer.alloc(9000);
    assert.equal(file.tryRead(target, 50_000), false);
    await file.load(50_000, 9000);
    assert.ok(file.tryRead(target, 50_000));
    assert.ok(target.equals(content.subarray(50_000, 59_000)));
    const { offset, length } = source.loads[0]!;
    assert.equal(source.loads.length, 1);
    const index = Number(stored.readBigUInt64LE(40));
    let start = 512;
    for (let i = 0; i < 12; i++) start += stored.readUInt32LE(index + 4 * i);
    let end = start;
    for (let i = 12; i < 15; i++) end += stored.readUInt32LE(index + 4 * i);
    assert.deepEqual({ offset, length }, { offset: start, length: end - start });
  });

  test('fetches a damaged block again, and only that one', async () => {
    const damaged = Uint8Array.from(stored);
    const source = new ArrivingFile(stored, damaged);
    const file = await openZFile(source, decoded);
    source.bytes[520]! ^= 1;
    source.bytes[900]! ^= 1;
    const target = Buffer.alloc(content.length);
    await readFully(file, target, 0);
    assert.ok(target.equals(content));
    const length = stored.readUInt32LE(Number(stored.readBigUInt64LE(40)));
    assert.ok(520 < 512 + length);
    for (const range of source.forgets) assert.ok(range.length <= 4096 + 516);
    assert.deepEqual(source.forgets[0], { offset: 512, length });
  });

  for (const [part, at] of [
    ['header', 40],
    ['index', Number(stored.readBigUInt64LE(40)) + 5],
  ] as const) {
    test(`fetches a damaged ${part} again`, async () => {
      const damaged = Uint8Array.from(stored);
      damaged[at]! ^= 0x10;
      const source = new ArrivingFile(stored, damaged);
      const file = await openZFile(source, decoded);
      assert.equal(source.forgets.length, 1);
      assert.equal(file.sizeBytes, content.length);
    });
  }
});

describe('ZFileReader on damage', () => {
  /** The content or an ObdError that says where: nothing else may come of damaged bytes. */
  async function assertHarmless(stored: Uint8Array, content: Buffer | undefined): Promise<void> {
    let read: Buffer;
    try {
      read = await contentOf(stored);
    } catch (error) {
      assert.ok(error instanceof ObdError, String(error));
      assert.ok(hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported));
      assert.equal(error.details.path, 'sample.zf');
      assert.ok(error.details.offset !== undefined && error.details.offset <= stored.length);
      return;
    }
    if (content !== undefined) assert.ok(read.equals(content), 'wrong bytes');
  }

  const forms = fc.constantFrom(...ZFILE_FORMS);
  const runs = { numRuns: Number(process.env['FUZZ_RUNS'] ?? 300) };

  test('a flipped bit gives an error or the right bytes', async () => {
    await fc.assert(
      fc.asyncProperty(forms, layerContent(60_000), fc.nat(), async (form, content, at) => {
        const stored = zfileOf(content, form);
        const bit = at % (stored.length * 8);
        stored[bit >>> 3]! ^= 1 << (bit & 7);
        await assertHarmless(stored, content);
      }),
      runs,
    );
  });

  test('a flipped bit in header, index or trailer gives an error or the right bytes', async () => {
    const content = Buffer.alloc(30_000, 'abc');
    const stored = zfileOf(content, LZ4_4K);
    const index = Number(stored.readBigUInt64LE(40));
    const spots = [
      ...range(0, 96),
      ...range(index, index + 40),
      ...range(stored.length - 512, 100),
    ];
    for (const byte of spots.filter((spot) => spot < stored.length)) {
      for (let bit = 0; bit < 8; bit++) {
        stored[byte]! ^= 1 << bit;
        await assertHarmless(stored, content);
        stored[byte]! ^= 1 << bit;
      }
    }
  });

  test('by truncation always gives an error, unless only the trailer is cut', async () => {
    const content = Buffer.alloc(30_000, 'abc');
    const stored = zfileOf(content, LZ4_4K);
    for (let length = 0; length < stored.length; length += 7) {
      await assertHarmless(stored.subarray(0, length), content);
    }
  });

  test('in files without digests gives an ObdError or some bytes', async () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(forms, layerContent(40_000), damage, async (form, content, changes) => {
        const stored = withoutDigests(zfileOf(content, form));
        for (const [at, byte] of changes) {
          // Most of it where the structure is.
          const spot = byte % 2 === 0 ? at % stored.length : stored.length - 512 + (at % 96);
          stored[spot] = byte;
        }
        await assertHarmless(stored, undefined);
      }),
      runs,
    );
  });

  test('that is all noise is an error', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 4000, size: 'max' }), async (noise) => {
        await assertHarmless(noise, undefined);
        const stored = zfileOf(Buffer.alloc(5000), LZ4_4K);
        await assertHarmless(Buffer.concat([stored.subarray(0, 512), noise]), undefined);
      }),
      runs,
    );
  });

  test('names file, offset and rule', async () => {
    const stored = zfileOf(Buffer.alloc(5000), LZ4_4K);
    stored[515]! ^= 1;
    await assert.rejects(contentOf(stored), {
      code: ErrorCodes.Corrupt,
      message:
        'Cannot read sample.zf at 512: block 0 fails its CRC, or does not decompress to its length',
      details: { path: 'sample.zf', offset: 512 },
    });
  });
});

describe('ZFileReader on files of other writers', () => {
  test('takes those without digests, with garbage in unused bits', async () => {
    const content = Buffer.alloc(100_000, 'legacy');
    const stored = withoutDigests(zfileOf(content, LZ4_4K));
    stored.writeUInt32LE(0xa4640b43, 32);
    stored.writeUInt32LE(0x7ffe, 36);
    stored.writeUInt32LE(0xdeadbeef, stored.length - 512 + 89);
    assert.ok((await contentOf(stored)).equals(content));
  });

  const samples = ['0', '1', '4095', '4096', '4097', '70000', 'rand200k'];
  for (const name of samples) {
    test(`reads upstream’s zfile/${name}`, { skip: vectorsMissing }, async () => {
      const content = vectorBytes(`zfile/in.${name}`);
      for (const algorithm of ['lz4', 'zstd']) {
        assert.ok((await contentOf(vectorBytes(`zfile/${name}.${algorithm}.zf`))).equals(content));
      }
    });
  }

  const refused = [
    { what: 'minilzo', at: 76, value: 0, code: ErrorCodes.Unsupported },
    { what: 'a dictionary', at: 78, value: 1, code: ErrorCodes.Unsupported },
    { what: 'blocks of 12 KiB', at: 73, value: 0x30, code: ErrorCodes.Unsupported },
    { what: 'a wrong number of blocks', at: 48, value: 1, code: ErrorCodes.Corrupt },
    { what: 'more than 2^33 blocks', at: 52, value: 2, code: ErrorCodes.Corrupt },
  ];
  for (const { what, at, value, code } of refused) {
    test(`refuses ${what}`, async () => {
      const stored = withoutDigests(zfileOf(Buffer.alloc(100_000), LZ4_4K));
      stored[stored.length - 512 + at] = value;
      await assert.rejects(contentOf(stored), { code });
    });
  }

  test('refuses more blocks than it would keep a table of', async () => {
    const stored = withoutDigests(zfileOf(Buffer.alloc(100), LZ4_4K));
    const blocks = 2 ** 25 + 1;
    stored.writeBigUInt64LE(BigInt(blocks), stored.length - 512 + 48);
    stored.writeBigUInt64LE(BigInt(blocks) * 4096n, stored.length - 512 + 56);
    await assert.rejects(contentOf(stored), { code: ErrorCodes.Unsupported });
  });
});

/** As the oldest writers left their files: no digests, no index CRC, a provisional header. */
function withoutDigests(stored: Buffer): Buffer {
  const legacy = Buffer.from(stored);
  legacy.writeUInt32LE(0x03, 32);
  legacy.writeUInt32LE(0x06, legacy.length - 512 + 32);
  return legacy;
}

function range(start: number, length: number): number[] {
  return Array.from({ length }, (_, i) => start + i);
}

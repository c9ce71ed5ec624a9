/**
 * Goal: a layer opens if and only if every rule of its format holds, and damage gives an ObdError that
 * says where. Method: a file per rule, then flipped bits, cuts and noise.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  headerBlock,
  layerFile,
  numberedSectors,
  openCommitted,
  SAMPLE_UUID,
} from '../../test/support/layer-samples.js';
import { ArrivingFile, MemoryFile } from '../../test/support/memory-file.js';
import { listOf } from '../../test/support/segments.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { RECORDS_MAX } from './committed-layer.js';
import { LayerStack } from './layer-stack.js';
import { ZEROES } from './segments.js';

const DATA = numberedSectors(32);
const at = (start: number, length: number, moffset = 8, source = 0) => ({
  start,
  length,
  moffset,
  source,
});
const open = (bytes: Uint8Array) => openCommitted(new MemoryFile(bytes, 'sample.lsmt'));
const GOOD = layerFile(DATA, [at(0, 8), at(8, 4, 40, ZEROES), at(100, 24, 16), null, null]);

describe('CommittedLayer', () => {
  test('reads trailer and index, padding or none', async () => {
    const layer = await open(GOOD);
    assert.equal(layer.uuid, SAMPLE_UUID);
    assert.equal(layer.virtualBytes, 1 << 20);
    const disk = new LayerStack([layer]);
    const target = Buffer.alloc(512);
    assert.ok(disk.tryRead(target, 101 * 512));
    assert.deepEqual(target, DATA.subarray(9 * 512, 10 * 512));
    assert.equal(disk.extentAt(0, 1 << 20), 8 * 512);
    assert.equal(disk.extentAt(8 * 512, 1 << 19), -92 * 512);
  });

  test('drops padding wherever it stands, and tags', async () => {
    const records = [null, { ...at(0, 8), tag: 3 }, null, { ...at(8, 8, 16), tag: 1 }, null];
    const { segments } = await open(layerFile(DATA, records));
    assert.deepEqual(listOf(segments), [at(0, 16)]);
  });

  test('reads a layer sealed in place: unpadded, unaligned, header unsealed', async () => {
    const sealed = Buffer.concat([
      layerFile(DATA, [at(5, 8, 20)], { header: { flags: 3 } }).subarray(0, -4096),
      Buffer.alloc(512 - 16, 0xaa),
      headerBlock({ flags: 6, indexOffset: 4096 + DATA.length, indexEntries: 1 }),
    ]);
    assert.deepEqual(listOf((await open(sealed)).segments), [at(5, 8, 20)]);
  });

  test('reads a sparse layer sealed in place', async () => {
    const records = [at(4, 8, 12)];
    const flags = { header: { flags: 0x13 }, trailer: { flags: 0x16 } };
    const layer = await open(layerFile(DATA, records, flags));
    assert.deepEqual(listOf(layer.segments), records);
  });

  test('takes a missing UUID for the null one, and text of either case', async () => {
    const bytes = layerFile(DATA, []);
    bytes.fill(0, bytes.length - 4096 + 56, bytes.length - 4096 + 93);
    assert.equal((await open(bytes)).uuid, '00000000-0000-0000-0000-000000000000');
    bytes.write(SAMPLE_UUID.toLowerCase(), bytes.length - 4096 + 56, 'latin1');
    assert.equal((await open(bytes)).uuid, SAMPLE_UUID);
  });

  const bad: ReadonlyArray<readonly [name: string, bytes: Uint8Array]> = [
    ['a file shorter than header and trailer', GOOD.subarray(0, 8191)],
    ['a header that is a trailer', layerFile(DATA, [], { header: { flags: 6 } })],
    ['a trailer that is a header', layerFile(DATA, [], { trailer: { flags: 7 } })],
    ['a trailer that is not sealed', layerFile(DATA, [], { trailer: { flags: 2 } })],
    ['an index file', layerFile(DATA, [], { trailer: { flags: 4 } })],
    ['an index in the header', layerFile(DATA, [], { trailer: { indexOffset: 4095 } })],
    ['an index past the trailer', layerFile(DATA, [], { trailer: { indexEntries: 1 } })],
    ['an index past the file', layerFile(DATA, [], { trailer: { indexOffset: 2 ** 52 } })],
    ['a disk of half sectors', layerFile(DATA, [], { trailer: { virtualBytes: 513 } })],
    ['an empty segment', layerFile(DATA, [at(8, 0)])],
    ['overlapping segments', layerFile(DATA, [at(0, 9), at(8, 8)])],
    ['unsorted segments', layerFile(DATA, [at(64, 8), at(0, 8)])],
    ['data in the header', layerFile(DATA, [at(0, 8, 7)])],
    ['data in the index', layerFile(DATA, [at(0, 8, 33)])],
    ['data past 2^53', layerFile(DATA, [at(0, 8, 2 ** 54)])],
    ['zeroes placed outside the data', layerFile(DATA, [at(0, 8, 41, ZEROES)])],
  ];
  for (const [name, bytes] of bad) {
    test(`rejects ${name} as corrupt`, async () => {
      await assert.rejects(open(bytes), { code: ErrorCodes.Corrupt });
    });
  }

  test(`rejects more than ${RECORDS_MAX} records without reading them`, async () => {
    const bytes = layerFile(DATA, [], { trailer: { indexEntries: RECORDS_MAX + 1 } });
    await assert.rejects(open(bytes), { code: ErrorCodes.Unsupported });
  });

  test('says which record is damaged, and where', async () => {
    await assert.rejects(open(layerFile(DATA, [at(0, 8), at(4, 8)])), {
      message: `Cannot read sample.lsmt at ${4096 + DATA.length + 16}: segment at sector 4 overlaps one that ends at 8`,
      details: { path: 'sample.lsmt', offset: 4096 + DATA.length + 16 },
    });
  });

  test('fetches a damaged trailer and a damaged index again', async () => {
    for (const spot of [GOOD.length - 4096 + 2, GOOD.length - 4096 - 70]) {
      const damaged = Uint8Array.from(GOOD);
      damaged[spot]! ^= 0xff;
      const source = new ArrivingFile(GOOD, damaged);
      const layer = await openCommitted(source);
      assert.equal(layer.segments.count, 3);
      assert.equal(source.forgets.length, 1);
    }
  });

  test('any damage gives a layer that reads, or an ObdError that says where', async () => {
    const change = fc.tuple(fc.nat(), fc.nat(255));
    const cut = fc.oneof(fc.constant(GOOD.length), fc.nat(GOOD.length));
    const runs = { numRuns: Number(process.env['FUZZ_RUNS'] ?? 500) };
    const changes = fc.array(change, { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(changes, cut, async (edits, length) => {
        const bytes = Buffer.from(GOOD.subarray(0, length));
        for (const [where, byte] of edits) {
          const spot = where % 2 === 0 ? (where >>> 1) % 136 : -4176 + ((where >>> 1) % 216);
          if (length > 8192) bytes[spot < 0 ? length + spot : spot] = byte;
        }
        await assertHarmless(bytes);
      }),
      runs,
    );
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 600, size: 'max' }), async (noise) => {
        const bytes = Buffer.from(GOOD);
        bytes.set(noise, bytes.length - 4096 + 24);
        await assertHarmless(bytes);
        await assertHarmless(noise);
      }),
      runs,
    );
  });
});

async function assertHarmless(bytes: Uint8Array): Promise<void> {
  try {
    const disk = new LayerStack([await open(bytes)]);
    const target = Buffer.alloc(Math.min(disk.sizeBytes, 1 << 16));
    assert.ok(disk.tryRead(target, 0));
  } catch (error) {
    assert.ok(error instanceof ObdError, String(error));
    assert.ok(hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported));
    assert.equal(error.details.path, 'sample.lsmt');
    assert.ok(error.details.offset !== undefined && error.details.offset <= bytes.length);
  }
}

describe('CommittedLayer with a target', () => {
  const target = () => new MemoryFile(numberedSectors(20).reverse(), 'layer.tar');
  const openTurbo = (bytes: Uint8Array) => openCommitted(new MemoryFile(bytes), target());

  test('takes tag 0 from the blob and tag 1 from the target', async () => {
    const records = [at(0, 4), { ...at(4, 4, 0), tag: 1 }, { ...at(8, 4, 16), tag: 1 }];
    const disk = new LayerStack([await openTurbo(layerFile(DATA, records))]);
    const found = Buffer.alloc(12 * 512);
    assert.ok(disk.tryRead(found, 0));
    const expected = Buffer.concat([
      DATA.subarray(0, 2048),
      target().bytes.subarray(0, 2048),
      target().bytes.subarray(16 * 512, 20 * 512),
    ]);
    assert.ok(found.equals(expected));
  });

  test('rejects segments past the end of the target, and other tags', async () => {
    for (const record of [
      { ...at(4, 4, 17), tag: 1 },
      { ...at(4, 4), tag: 2 },
    ]) {
      await assert.rejects(openTurbo(layerFile(DATA, [record])), { code: ErrorCodes.Corrupt });
    }
  });
});

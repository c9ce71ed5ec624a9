/**
 * Goal: a writable layer reads as its writes leave the disk, also after a crash at any byte, and broken
 * ones are refused. Method: random logs against writes to a plain buffer; a file per rule.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { headerBlock, numberedSectors, recordBytes } from '../../test/support/layer-samples.js';
import { MemoryFile } from '../../test/support/memory-file.js';
import { ErrorCodes } from '../errors.js';
import { LayerStack } from './layer-stack.js';
import { ZEROES } from './segments.js';
import { LOG_RECORDS_MAX, UnsealedLayer } from './unsealed-layer.js';

const SECTORS = 1024;
const VIRTUAL = { virtualBytes: SECTORS * 512 };
const DATA_HEADER = headerBlock({ flags: 3, ...VIRTUAL });
const INDEX_HEADER = headerBlock({ flags: 1, indexOffset: 4096, ...VIRTUAL });

const open = (data: Uint8Array, index: Uint8Array) =>
  UnsealedLayer.open(new MemoryFile(data, 'data'), new MemoryFile(index, 'index'));

describe('UnsealedLayer, append-only', () => {
  const writes = fc.array(
    fc.record({
      start: fc.nat(SECTORS - 32),
      length: fc.integer({ min: 1, max: 32 }),
      discard: fc.boolean(),
    }),
    { maxLength: 120 },
  );

  test('reads as the writes left the disk, a torn record aside', async () => {
    await fc.assert(
      fc.asyncProperty(writes, fc.nat(15), async (log, torn) => {
        const disk = Buffer.alloc(SECTORS * 512);
        const data = [DATA_HEADER];
        let moffset = 8;
        const records = log.map(({ start, length, discard }, i) => {
          const bytes = Buffer.alloc(length * 512, discard ? 0 : i + 1);
          disk.set(bytes, start * 512);
          const record = { start, length, moffset, source: discard ? ZEROES : 0, tag: 1 };
          if (discard) return record;
          data.push(bytes);
          moffset += length;
          return record;
        });
        const index = Buffer.concat([INDEX_HEADER, recordBytes(records), Buffer.alloc(torn, 0xff)]);
        const stack = new LayerStack([await open(Buffer.concat(data), index)]);
        const found = Buffer.alloc(disk.length, 0xee);
        assert.ok(stack.tryRead(found, 0));
        assert.ok(found.equals(disk));
      }),
      { numRuns: 100 },
    );
  });

  test('skips the padding of a group commit', async () => {
    const index = recordBytes([null, { start: 0, length: 1, moffset: 8, source: 0 }, null]);
    const data = Buffer.concat([DATA_HEADER, numberedSectors(1)]);
    const layer = await open(data, Buffer.concat([INDEX_HEADER, index]));
    assert.equal(layer.segments.count, 1);
  });

  const data = Buffer.concat([DATA_HEADER, numberedSectors(4)]);
  const record = (start: number, length: number, moffset: number) =>
    Buffer.concat([INDEX_HEADER, recordBytes([{ start, length, moffset, source: 0 }])]);
  const bad = [
    ['an index as data', INDEX_HEADER, INDEX_HEADER],
    ['data as the index', DATA_HEADER, DATA_HEADER],
    ['a sealed layer', headerBlock({ flags: 7 }), INDEX_HEADER],
    ['the index of another layer', data, headerBlock({ flags: 1, uuid: crypto.randomUUID() })],
    ['a short index', data, INDEX_HEADER.subarray(0, 4095)],
    ['data that never reached the disk', data, record(0, 5, 8)],
    ['data in the header', data, record(0, 1, 7)],
    ['an empty record', data, record(0, 0, 8)],
  ] as const;
  for (const [name, dataBytes, indexBytes] of bad) {
    test(`rejects ${name} as corrupt`, async () => {
      await assert.rejects(open(dataBytes, indexBytes), { code: ErrorCodes.Corrupt });
    });
  }

  test(`rejects a log of more than ${LOG_RECORDS_MAX} records`, async () => {
    class HugeIndex extends MemoryFile {
      override get sizeBytes(): number {
        return 4096 + (LOG_RECORDS_MAX + 1) * 16;
      }
    }
    await assert.rejects(UnsealedLayer.open(new MemoryFile(data), new HugeIndex(INDEX_HEADER)), {
      code: ErrorCodes.Unsupported,
    });
  });
});

describe('UnsealedLayer, sparse', () => {
  const header = headerBlock({ flags: 0x13, virtualBytes: 16 * 512 });

  test('is the disk behind its header, and can only be the bottom', async () => {
    const disk = numberedSectors(16);
    const layer = await open(Buffer.concat([header, disk]), new Uint8Array());
    const found = Buffer.alloc(disk.length);
    assert.ok(new LayerStack([layer]).tryRead(found, 0));
    assert.ok(found.equals(disk));
    assert.throws(() => new LayerStack([layer, layer]), { code: ErrorCodes.FailedPrecondition });
  });

  test('rejects a file that ends inside its disk', async () => {
    await assert.rejects(open(Buffer.concat([header, numberedSectors(15)]), new Uint8Array()), {
      code: ErrorCodes.Corrupt,
    });
  });
});

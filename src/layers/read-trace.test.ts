/**
 * Goal: traces are read and written as overlaybd does it, and a damaged one is refused by name.
 * Method: the bytes of overlaybd's documentation, every single byte of a trace changed, and made-up headers.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { encodeTrace, parseTrace, TRACED_READS_MAX, type TracedRead } from './read-trace.js';

const FILE = { label: 'some trace' };
const CORRUPT = { code: ErrorCodes.Corrupt, message: /^Cannot read some trace at \d+: / };

/** A trace of any records, with a header that fits them. */
function traceAround(records: Buffer): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xc2ef1820, 0);
  header.writeBigUInt64LE(BigInt(records.length), 8);
  header.writeUInt32LE(rawCrc32c(records, 0), 16);
  return Buffer.concat([header, records]);
}

function record(op: string, layer: number, length: bigint, offset: bigint): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.write(op, 0, 'latin1');
  bytes.writeUInt32LE(layer, 4);
  bytes.writeBigUInt64LE(length, 8);
  bytes.writeBigInt64LE(offset, 16);
  return bytes;
}

describe('traces', () => {
  test('a read has the bytes that overlaybd gives it', () => {
    const trace = encodeTrace([{ layer: 1, offset: 8192, length: 4096 }]);
    assert.equal(trace.subarray(0, 4).toString('hex'), '2018efc2');
    assert.equal(
      trace.subarray(24).toString('hex'),
      '52000000010000000010000000000000 0020000000000000'.replace(' ', ''),
    );
  });

  test('reads come back in the order in which they were written', () => {
    const reads: TracedRead[] = [];
    for (let i = 0; i < 500; i++) reads.push({ layer: i % 7, offset: (500 - i) * 4096, length: i });
    assert.deepEqual(parseTrace(encodeTrace(reads), FILE), reads);
    assert.deepEqual(parseTrace(encodeTrace([]), FILE), []);
  });

  test('only reads are taken', () => {
    const trace = traceAround(Buffer.concat([record('W', 0, 1n, 2n), record('R', 3, 4n, 5n)]));
    assert.deepEqual(parseTrace(trace, FILE), [{ layer: 3, offset: 5, length: 4 }]);
  });

  test('a changed byte is found, unless it is padding of the header', () => {
    const trace = encodeTrace([{ layer: 1, offset: 8192, length: 4096 }]);
    for (let at = 0; at < trace.length; at++) {
      if ((at >= 4 && at < 8) || (at >= 20 && at < 24)) continue;
      const changed = Buffer.from(trace);
      changed[at]! ^= 0x10;
      assert.throws(() => parseTrace(changed, FILE), CORRUPT, `byte ${at}`);
    }
  });

  test('a trace that ends early, or has more behind it, is refused', () => {
    const trace = encodeTrace([{ layer: 1, offset: 8192, length: 4096 }]);
    for (let length = 0; length < trace.length; length++) {
      assert.throws(() => parseTrace(trace.subarray(0, length), FILE), CORRUPT, `${length} bytes`);
    }
    assert.throws(() => parseTrace(Buffer.concat([trace, Buffer.alloc(24)]), FILE), CORRUPT);
    assert.throws(() => parseTrace(traceAround(Buffer.alloc(25)), FILE), CORRUPT);
  });

  test('reads of impossible places are refused, although the CRC is right', () => {
    for (const [length, offset] of [
      [1n, -1n],
      [1n, 2n ** 63n - 1n],
      [2n ** 64n - 1n, 0n],
      [2n ** 53n - 1n, 4096n],
    ] as const) {
      const trace = traceAround(record('R', 0, length, offset));
      assert.throws(() => parseTrace(trace, FILE), CORRUPT, `${length} at ${offset}`);
    }
  });

  test('a trace has a limit', () => {
    const read = { layer: 0, offset: 0, length: 1 };
    const reads = new Array<TracedRead>(TRACED_READS_MAX + 1).fill(read);
    assert.throws(() => encodeTrace(reads), RangeError);
    assert.equal(parseTrace(encodeTrace(reads.slice(1)), FILE).length, TRACED_READS_MAX);
  });
});

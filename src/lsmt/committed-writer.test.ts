/**
 * Goal: what is written opens as what was meant. Method: random segments there and back. That the bytes are upstream's is
 * tested in src/layers/upstream-writer.test.ts.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { openCommitted, SAMPLE_UUID } from '../../test/support/layer-samples.js';
import { MemoryFile, MemorySink } from '../../test/support/memory-file.js';
import { expandSegments, listOf, segmentLists, segmentsOf } from '../../test/support/segments.js';
import { ErrorCodes } from '../errors.js';
import { CommittedLayerWriter } from './committed-writer.js';
import { LayerStack } from './layer-stack.js';
import { ZEROES } from './segments.js';

const SECTORS = 4096;
const OPTIONS = { virtualBytes: SECTORS * 512, uuid: SAMPLE_UUID };

function write(options: ConstructorParameters<typeof CommittedLayerWriter>[1]) {
  const sink = new MemorySink();
  return { sink, writer: new CommittedLayerWriter(sink, options) };
}

const openWritten = (sink: MemorySink) => openCommitted(new MemoryFile(sink.written));

describe('CommittedLayerWriter', () => {
  test('writes a layer that opens with the same segments, in aligned and joined records', async () => {
    await fc.assert(
      fc.asyncProperty(segmentLists(SECTORS), async (list) => {
        const { sink, writer } = write(OPTIONS);
        const expected = Buffer.alloc(SECTORS * 512);
        for (const [i, { start, length, source }] of list.entries()) {
          const bytes = Buffer.alloc(length * 512, i + 1);
          if (source === ZEROES) writer.writeZeroes(start * 512, bytes.length);
          else {
            writer.write(start * 512, bytes);
            expected.set(bytes, start * 512);
          }
        }
        writer.finish();
        const layer = await openWritten(sink);
        const meant = segmentsOf(
          list.map((s) => ({ ...s, moffset: 0, source: s.source && ZEROES })),
        );
        const covered = (d: string[]) => d.map((what) => what !== 'hole');
        assert.deepEqual(
          covered(expandSegments(layer.segments, SECTORS)),
          covered(expandSegments(meant, SECTORS)),
        );
        const found = Buffer.alloc(SECTORS * 512);
        assert.ok(new LayerStack([layer]).tryRead(found, 0));
        assert.ok(found.equals(expected));
        const trailerAt = sink.written.length - 4096;
        assert.equal(sink.written.readBigUInt64LE(trailerAt + 40) % 256n, 0n, 'padded');
      }),
      { numRuns: 60 },
    );
  });

  test('an empty layer is two headers', () => {
    const { sink, writer } = write({ virtualBytes: 1 << 30 });
    writer.finish();
    assert.equal(sink.written.length, 8192);
    assert.equal(sink.written.readUInt32LE(28), 7);
    assert.equal(sink.written.readUInt32LE(4096 + 28), 6);
    assert.equal(sink.written.readBigUInt64LE(4096 + 32), 4096n);
  });

  test('gives the same bytes however long runs are cut', async () => {
    const sectors = 40_000;
    const data = Buffer.alloc(sectors * 512, 'data');
    const files = [1, 7, 1000, 16383, sectors].map((cut) => {
      const { sink, writer } = write({ virtualBytes: 1 << 30 });
      for (let at = 0; at < sectors; at += cut) {
        writer.write(at * 512, data.subarray(at * 512, (at + cut) * 512));
      }
      writer.finish();
      return sink.written;
    });
    const lengths = (file: Buffer) => file.readUInt32LE(4096 + data.length + 4) >>> 18;
    for (const file of files.slice(0, 3)) {
      assert.equal(lengths(file), 16382, 'joined records stay below the largest length');
      assert.ok(file.equals(files[0]!));
    }
    for (const file of files) {
      const layer = await openCommitted(new MemoryFile(file));
      assert.deepEqual(listOf(layer.segments), [
        { start: 0, length: sectors, moffset: 8, source: 0 },
      ]);
    }
  });

  test('stores data in the order of its calls, and sorts the index', async () => {
    const { sink, writer } = write(OPTIONS);
    for (const sector of [40, 8, 41, 24]) writer.write(sector * 512, Buffer.alloc(512, sector));
    writer.finish();
    assert.deepEqual(
      [...sink.written.subarray(4096, 4096 + 4 * 512)].filter((_, i) => i % 512 === 0),
      [40, 8, 41, 24],
    );
    const layer = await openWritten(sink);
    assert.deepEqual(listOf(layer.segments), [
      { start: 8, length: 1, moffset: 9, source: 0 },
      { start: 24, length: 1, moffset: 11, source: 0 },
      { start: 40, length: 1, moffset: 8, source: 0 },
      { start: 41, length: 1, moffset: 10, source: 0 },
    ]);
  });

  test('finish() throws if a sector was stored twice', () => {
    const { writer } = write(OPTIONS);
    writer.write(512, Buffer.alloc(1024));
    writer.writeZeroes(1024, 512);
    assert.throws(() => writer.finish(), RangeError);
  });

  test('a segment outside the disk or of half sectors is a bug', () => {
    const { writer } = write(OPTIONS);
    writer.write(512, Buffer.alloc(512));
    assert.throws(() => writer.write(SECTORS * 512, Buffer.alloc(512)), RangeError);
    assert.throws(() => writer.write(2048, Buffer.alloc(511)), RangeError);
    assert.throws(() => writer.writeZeroes(1025, 512), RangeError);
  });

  test('refuses options that no layer can have', () => {
    for (const options of [
      { ...OPTIONS, uuid: 'not one' },
      { ...OPTIONS, virtualBytes: 513 },
      { ...OPTIONS, virtualBytes: -512 },
      { ...OPTIONS, userTag: 'x'.repeat(257) },
    ]) {
      assert.throws(() => write(options), { code: ErrorCodes.InvalidArgument });
    }
  });
});

/**
 * Goal: a stack reads as its layers say when asked one sector at a time from the top, loads and
 * forgets exactly what a read needs, and tells data from holes.
 * Method: random stacks on random data, against the naive model.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ArrivingFile, MemoryFile } from '../../test/support/memory-file.js';
import {
  expandSegments,
  type Segment,
  segmentLists,
  segmentsOf,
} from '../../test/support/segments.js';
import { ErrorCodes } from '../errors.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Layer } from './layer.js';
import { LAYERS_MAX, LayerStack } from './layer-stack.js';
import { NULL_UUID } from './layer-uuid.js';
import { ZEROES } from './segments.js';

const SECTORS = 512;
/** Each sector of the data says which one it is. */
const DATA = Buffer.alloc(1024 * 512);
for (let i = 0; i < DATA.length; i += 4) DATA.writeUInt32LE((i * 2654435761) >>> 0, i);

function layerOf(list: readonly Segment[], more: Partial<Layer> = {}): Layer {
  return {
    label: 'test layer',
    virtualBytes: SECTORS * 512,
    uuid: NULL_UUID,
    parentUuid: NULL_UUID,
    userTag: '',
    segments: segmentsOf(list),
    sources: [new MemoryFile(DATA)],
    bottomOnly: false,
    close: () => {},
    ...more,
  };
}

/** Lists whose data lie in one source of 1024 sectors. */
const lists = segmentLists(SECTORS).map((list) =>
  list.map((s) => ({
    ...s,
    moffset: s.moffset % (1024 - 64),
    source: s.source === ZEROES ? ZEROES : 0,
  })),
);

/** The expected bytes of the stack's disk, computed sector by sector. */
function naiveDisk(stack: readonly (readonly Segment[])[], sectors = SECTORS): Buffer {
  const disk = Buffer.alloc(sectors * 512);
  for (const [sector, what] of expandSegments(stack.flat(), sectors).entries()) {
    const moffset = /^0:([0-9]+)$/.exec(what)?.[1];
    if (moffset === undefined) continue;
    DATA.copy(disk, sector * 512, Number(moffset) * 512, (Number(moffset) + 1) * 512);
  }
  return disk;
}

const ranges = fc
  .tuple(fc.nat(SECTORS * 512), fc.nat(SECTORS * 512))
  .map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));

describe('LayerStack', () => {
  test('reads the bytes of the model, from any byte on', () => {
    const stacks = fc.array(lists, { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(stacks, fc.array(ranges, { maxLength: 20 }), (layers, wanted) => {
        const stack = new LayerStack(layers.map((list) => layerOf(list)));
        const disk = naiveDisk(layers);
        for (const { offset, length } of [{ offset: 0, length: disk.length }, ...wanted]) {
          const target = Buffer.alloc(length, 0xee);
          assert.ok(stack.tryRead(target, offset));
          assert.ok(target.equals(disk.subarray(offset, offset + length)));
        }
      }),
      { numRuns: 200 },
    );
  });

  test('extentAt() separates data from zeroes', () => {
    fc.assert(
      fc.property(fc.array(lists, { minLength: 1, maxLength: 4 }), ranges, (layers, wanted) => {
        const stack = new LayerStack(layers.map((list) => layerOf(list)));
        const model = expandSegments(layers.flat(), SECTORS).map((what) => what.startsWith('0:'));
        const end = wanted.offset + wanted.length;
        for (let at = wanted.offset; at < end; ) {
          const extent = stack.extentAt(at, end - at);
          assert.ok(extent !== 0 && Math.abs(extent) <= end - at);
          const last = Math.floor((at + Math.abs(extent) - 1) / 512);
          for (let sector = Math.floor(at / 512); sector <= last; sector++) {
            assert.equal(model[sector], extent > 0);
          }
          at += Math.abs(extent);
          if (at < end && at % 512 === 0) assert.notEqual(model[at / 512], extent > 0, 'cut short');
        }
      }),
      { numRuns: 200 },
    );
  });

  test('load() makes a read possible with no byte more than it needs', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(lists, { minLength: 1, maxLength: 3 }),
        ranges,
        async (all, want) => {
          const sources = all.map(() => new ArrivingFile(DATA));
          const stack = new LayerStack(
            all.map((list, i) => layerOf(list, { sources: [sources[i]!] })),
          );
          const target = Buffer.alloc(want.length);
          await stack.load(want.offset, want.length);
          assert.ok(stack.tryRead(target, want.offset));
          const disk = naiveDisk(all);
          assert.ok(target.equals(disk.subarray(want.offset, want.offset + want.length)));
          let dataBytes = 0;
          for (let at = want.offset; at < want.offset + want.length; ) {
            const extent = stack.extentAt(at, want.offset + want.length - at);
            dataBytes += Math.max(0, extent);
            at += Math.abs(extent);
          }
          const loaded = sources
            .flatMap((s) => s.loads)
            .reduce((sum, { length }) => sum + length, 0);
          assert.equal(loaded, dataBytes);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('loads data that continue in the source in one call, across a hole of the disk', async () => {
    const source = new ArrivingFile(DATA);
    const list = [
      { start: 0, length: 8, moffset: 8, source: 0 },
      { start: 100, length: 8, moffset: 16, source: 0 },
    ];
    const stack = new LayerStack([layerOf(list, { sources: [source] })]);
    await stack.load(512, 104 * 512);
    assert.deepEqual(source.loads, [{ offset: 9 * 512, length: 12 * 512 }]);
    assert.ok(stack.invalidate(2 * 512, 512));
    assert.deepEqual(source.forgets, [{ offset: 10 * 512, length: 512 }]);
    assert.equal(stack.tryRead(Buffer.alloc(512), 0), false, 'sector 0 was never wanted');
  });

  test('has the size of the topmost layer that states one, and ends there', () => {
    const list = [{ start: 0, length: 64, moffset: 8, source: 0 }];
    const big = layerOf(list, { virtualBytes: 64 * 512 });
    const small = layerOf([], { virtualBytes: 10 * 512 });
    const none = layerOf([{ start: 4, length: 1, moffset: 8, source: 0 }], { virtualBytes: 0 });
    const stack = new LayerStack([big, small, none]);
    assert.equal(stack.sizeBytes, 10 * 512);
    assert.equal(stack.extentAt(0, 10 * 512), 10 * 512);
    const target = Buffer.alloc(10 * 512);
    assert.ok(stack.tryRead(target, 0));
    assert.ok(target.equals(naiveDisk([list, [{ ...list[0]!, start: 4, length: 1 }]], 10)));
    assert.throws(() => stack.tryRead(Buffer.alloc(1), 10 * 512), RangeError);
    assert.throws(() => stack.extentAt(9 * 512, 513), RangeError);
  });

  test('a layer’s own end is no end of its data, as upstream has it', () => {
    const list = [{ start: 20, length: 4, moffset: 8, source: 0 }];
    const stack = new LayerStack([layerOf(list, { virtualBytes: 512 }), layerOf([])]);
    assert.equal(stack.extentAt(20 * 512, 2048), 2048);
  });

  test('closes every source, of two-file layers too', () => {
    const files = [1, 2, 3].map(() => new MemoryFile(DATA));
    const stack = new LayerStack([
      layerOf([], { sources: files.slice(0, 1) }),
      layerOf([{ start: 0, length: 1, moffset: 0, source: 1 }], { sources: files.slice(1) }),
    ]);
    assert.equal(stack.extentAt(0, 512), 512);
    stack.close();
    assert.ok(files.every((file) => file.closed));
  });

  test('refuses no layers, too many, and a sparse one above the bottom', () => {
    const empty: RandomAccessFile[] = [];
    const layer = layerOf([], { sources: empty });
    assert.throws(() => new LayerStack([]), { code: ErrorCodes.InvalidArgument });
    assert.equal(new LayerStack(Array(LAYERS_MAX).fill(layer)).sizeBytes, SECTORS * 512);
    assert.throws(() => new LayerStack(Array(LAYERS_MAX + 1).fill(layer)), {
      code: ErrorCodes.Unsupported,
    });
    const sparse = layerOf([], { bottomOnly: true });
    assert.equal(new LayerStack([sparse, layer]).sizeBytes, SECTORS * 512);
    assert.throws(() => new LayerStack([layer, sparse]), { code: ErrorCodes.FailedPrecondition });
  });
});

/**
 * Goal: a change set reads as the layers below with the writes on top; its commit, stacked on them, gives exactly that
 * disk and stores no block that is the same below and none twice, in any order of the runs.
 * Method: random reads, writes and discards against plain buffers; commits replayed onto the buffer below.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { ErrorCodes } from '../errors.js';
import type { BlockRun } from '../ext4/block-allocator.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { ChangeSet, type DiskBelow } from './change-set.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-change-set-'));
after(() => rmSync(directory, { recursive: true }));
const BLOCKS = 200;
const SIZE = BLOCKS * EXT4_BLOCK_BYTES;

/** A disk in memory; blocks of zeroes count as holes. */
class BufferDisk implements DiskBelow {
  readonly bytes: Buffer;
  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
  get sizeBytes(): number {
    return this.bytes.length;
  }
  tryRead(target: Uint8Array, offset: number): boolean {
    target.set(this.bytes.subarray(offset, offset + target.length));
    return true;
  }
  extentAt(offset: number, length: number): number {
    const isZero = (at: number) => this.bytes[at] === 0;
    let end = offset + 1;
    while (end < offset + length && isZero(end) === isZero(offset)) end++;
    return isZero(offset) ? offset - end : end - offset;
  }
}

interface Committed {
  readonly disk: Buffer;
  dataBlocks: number;
  zeroedBlocks: number;
}

function commitOver(below: Buffer, changes: ChangeSet, runs: readonly BlockRun[]): Committed {
  const committed: Committed = { disk: Buffer.from(below), dataBlocks: 0, zeroedBlocks: 0 };
  const steps = changes.commitTo(
    {
      write: (offset, bytes) => {
        committed.disk.set(bytes, offset);
        committed.dataBlocks += bytes.length / EXT4_BLOCK_BYTES;
      },
      writeZeroes: (offset, length) => {
        committed.disk.fill(0, offset, offset + length);
        committed.zeroedBlocks += length / EXT4_BLOCK_BYTES;
      },
    },
    runs,
  );
  for (const _ of steps);
  return committed;
}

const blocksOf = (disk: Buffer) =>
  Array.from({ length: BLOCKS }, (_, i) =>
    disk.subarray(i * EXT4_BLOCK_BYTES, (i + 1) * EXT4_BLOCK_BYTES),
  );

test('agrees with a buffer, and stores only the blocks that differ', () => {
  const sectors = fc.integer({ min: 0, max: BLOCKS * 8 - 1 });
  const step = fc.record({
    kind: fc.constantFrom('write', 'write', 'write', 'discard'),
    sector: sectors,
    count: fc.integer({ min: 1, max: 700 }),
    fill: fc.constantFrom(0, 0, 1, 2),
  });
  const run = fc.record({
    start: fc.integer({ min: 0, max: BLOCKS - 1 }),
    count: fc.integer({ min: 1, max: 80 }),
  });
  const lower = fc.array(fc.constantFrom(0, 0, 1), { minLength: BLOCKS, maxLength: BLOCKS });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), lower, fc.array(run), (steps, fills, runs) => {
      const below = Buffer.alloc(SIZE);
      fills.forEach((value, i) => {
        below.fill(value, i * EXT4_BLOCK_BYTES, (i + 1) * EXT4_BLOCK_BYTES);
      });
      const model = Buffer.from(below);
      const changes = new ChangeSet(join(directory, 'c'), SIZE, new BufferDisk(below));
      for (const { kind, sector, count, fill } of steps) {
        const offset = sector * 512;
        const length = Math.min(count * 512, SIZE - offset);
        if (kind === 'write') {
          changes.write(Buffer.alloc(length, fill), offset);
          model.fill(fill, offset, offset + length);
        } else {
          changes.discard(offset, length);
          // Discarded bytes are unspecified until written: take those that are read, but only of whole blocks inside
          // the range.
          const first = Math.ceil(offset / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
          const end = Math.floor((offset + length) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
          if (end > first) below.copy(model, first, first, end);
        }
      }
      const seen = Buffer.alloc(SIZE);
      changes.read(seen, 0);
      assert.ok(seen.equals(model));
      const part = Buffer.alloc(9000);
      changes.read(part, 12_345);
      assert.ok(part.equals(model.subarray(12_345, 12_345 + 9000)));

      const committed = commitOver(below, changes, [...runs, { start: 0, count: BLOCKS }]);
      assert.ok(committed.disk.equals(model));
      const differing = blocksOf(model).filter((block, i) => !block.equals(blocksOf(below)[i]!));
      const zeroed = differing.filter((block) => block.every((byte) => byte === 0));
      assert.equal(committed.zeroedBlocks, zeroed.length);
      assert.equal(committed.dataBlocks, differing.length - zeroed.length);
      changes.close();
    }),
    { numRuns: 60 },
  );
});

test('a disk larger than the one below reads zeroes past its end', () => {
  const below = Buffer.alloc(2 * EXT4_BLOCK_BYTES, 7);
  const changes = new ChangeSet(join(directory, 'c'), SIZE, new BufferDisk(below));
  const seen = Buffer.alloc(4 * EXT4_BLOCK_BYTES);
  changes.read(seen, 0);
  assert.ok(seen.equals(Buffer.concat([below, Buffer.alloc(2 * EXT4_BLOCK_BYTES)])));
  changes.close();
  changes.close();
});

test('leaves no file behind, and reports an unusable work directory', () => {
  new ChangeSet(join(directory, 'c'), SIZE, undefined).close();
  assert.deepEqual(readdirSync(directory), []);
  assert.throws(() => new ChangeSet(join(directory, 'none', 'c'), SIZE, undefined), {
    code: ErrorCodes.Io,
  });
});

test('asserts that ranges are inside the disk', () => {
  const changes = new ChangeSet(join(directory, 'c'), SIZE, undefined);
  assert.throws(() => changes.write(Buffer.alloc(1024), SIZE - 512), RangeError);
  assert.throws(() => changes.read(Buffer.alloc(1), -1), RangeError);
  changes.close();
  assert.throws(() => changes.write(Buffer.alloc(512), 0), TypeError);
});

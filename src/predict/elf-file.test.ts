/**
 * Goal: the reader of ELF files tells what is read when, and a forged file costs no more than a real one.
 * Method: small ELF files in images in memory; forged ones with each field of header and tables set to extremes.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { elfBytes } from '../../test/support/elf-bytes.js';
import { treeOf } from '../../test/support/predicted-image.js';
import { readElf } from './elf-file.js';
import { ImageFiles } from './image-files.js';

const PAGE = 4096;

async function read(bytes: Buffer) {
  const image = new ImageFiles(await treeOf({ '/program': bytes }));
  return { elf: await readElf(image, (await image.findFile('/program'))!), image };
}

describe('readElf()', () => {
  test('tells tables and data from instructions and constants, and leaves symbols out', async () => {
    const { elf } = await read(elfBytes({ textBytes: 3 * PAGE }));
    const page = (first: number, count = 1) => ({
      start: first * PAGE,
      end: (first + count) * PAGE,
    });
    assert.deepEqual(elf?.text, [page(4, 3)]);
    assert.deepEqual(elf?.constants, [page(7)]);
    const certain = elf!.certain.map(({ start }) => start / PAGE);
    // Headers, .dynstr, .interp, .dynamic, .data; neither .eh_frame (8) nor .symtab (10).
    assert.deepEqual(certain, [0, 1, 2, 3, 9]);
  });

  test('uses the segments of a file without a table of sections', async () => {
    const { elf } = await read(elfBytes({ withoutSections: true }));
    assert.deepEqual(elf?.text, [{ start: 4 * PAGE, end: 5 * PAGE }]);
    assert.deepEqual(elf?.constants, [{ start: 5 * PAGE, end: 6 * PAGE }]);
  });

  test('returns interpreter, needed libraries and their directories', async () => {
    const { elf } = await read(
      elfBytes({
        interpreter: '/lib/ld.so',
        needed: ['libc.so.6', 'libm.so.6'],
        runpath: '$ORIGIN:/opt',
      }),
    );
    assert.equal(elf?.interpreter, '/lib/ld.so');
    assert.deepEqual(elf?.needed, ['libc.so.6', 'libm.so.6']);
    assert.deepEqual(elf?.runpath, ['$ORIGIN', '/opt']);
    assert.equal(elf?.triplet, 'x86_64-linux-gnu');
  });

  test('returns undefined for what is no 64-bit little-endian ELF file', async () => {
    const bytes = elfBytes();
    for (const [at, value] of [
      [0, 0],
      [4, 1],
      [5, 2],
    ] as const) {
      const other = Buffer.from(bytes);
      other[at] = value;
      assert.equal((await read(other)).elf, undefined);
    }
    assert.equal((await read(bytes.subarray(0, 40))).elf, undefined);
  });

  test('reads little of a forged file, and returns ranges inside it', async () => {
    const good = elfBytes({ interpreter: '/lib/ld.so', needed: ['a', 'b'], rpath: '/x' });
    const tables = good.readUInt32LE(40);
    const places = [16, 32, 40, 54, 56, 58, 60, 62];
    for (let at = 64; at < 64 + 6 * 56; at += 8) places.push(at);
    for (let at = tables; at < good.length; at += 8) places.push(at);
    for (const at of places) {
      for (const value of [0xff, 0x01]) {
        const forged = Buffer.from(good);
        forged.fill(value, at, Math.min(at + 8, forged.length));
        const { elf, image } = await read(forged);
        assert.ok(image.readBytes < 1 << 20, `${image.readBytes} bytes read, field at ${at}`);
        for (const { start, end } of [
          ...(elf?.certain ?? []),
          ...(elf?.text ?? []),
          ...(elf?.constants ?? []),
        ]) {
          assert.ok(start >= 0 && start < end && end <= forged.length);
        }
      }
    }
  });
});

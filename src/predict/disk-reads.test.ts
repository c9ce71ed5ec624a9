/**
 * Goal: the reads of files, put together, are their bytes; holes and files that are not there read nothing.
 * Method: a file system in memory with small, large, linked and sparse files; the ranges are read from its disk.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { diskOf } from '../../test/support/predicted-image.js';
import { diskReads } from './disk-reads.js';
import { Ext4Tree } from './ext4-tree.js';

const LARGE = Buffer.from(Uint8Array.from({ length: 2_500_000 }, (_, i) => (i * 31) >>> 7));
const disk = diskOf({
  '/bin/large': LARGE,
  '/bin/link': { link: '../bin/./large' },
  '/etc/small': 'small',
  '/var/hole': { holeBytes: 1 << 20 },
  '/var/empty': '',
});
const tree = await Ext4Tree.open(disk);

describe('diskReads()', () => {
  const readAll = async (files: Parameters<typeof diskReads>[1]) => {
    const { reads, missing } = await diskReads(tree, files);
    assert.deepEqual(missing, []);
    const parts = reads.map(({ offset, length }) => {
      assert.ok(length <= 1 << 20);
      const bytes = Buffer.alloc(length);
      disk.read(bytes, offset);
      return bytes;
    });
    return Buffer.concat(parts);
  };

  test('finds the bytes of whole files, also by links', async () => {
    const files = ['/etc/small', '/bin/link'].map((path) => ({ path, ranges: undefined }));
    const found = await readAll(files);
    assert.ok(found.equals(Buffer.concat([Buffer.from('small'), LARGE])));
  });

  test('finds parts of a file in the order of the ranges', async () => {
    const ranges = [
      { start: 2_490_000, end: 2_500_000 },
      { start: 5_000, end: 1_500_000 },
    ];
    const found = await readAll([{ path: '/bin/large', ranges }]);
    const parts = ranges.map(({ start, end }) => LARGE.subarray(start, end));
    assert.ok(found.equals(Buffer.concat(parts)));
  });

  test('reads nothing for holes, and names what is no file', async () => {
    const paths = ['/var/hole', '/var/empty', '/etc', '/none'];
    const files = paths.map((path) => ({ path, ranges: undefined }));
    const found = await diskReads(tree, files);
    assert.deepEqual(found, { reads: [], directories: ['/etc'], missing: ['/none'] });
  });
});

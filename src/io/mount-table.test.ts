/**
 * Goal: mounts are found by their place, with any characters in it and any other fields in their lines.
 * Method: lines as kernels write them, and this machine's own table.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMountTable, readMountTable } from './mount-table.js';

test('lines with and without optional fields, and with escaped characters', () => {
  const text = [
    '22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw',
    '90 22 7:3 / /var/lib/a\\040b/\\134c ro,noatime - ext4 /dev/loop3 ro',
    '91 22 0:50 / /x rw - overlay overlay rw,lowerdir=/a - b',
    '92 27 0:39 / /run/m\\303\\274/ümlaut rw shared:7 master:2 - fuse /dev/fuse rw',
    'damaged',
    '',
  ].join('\n');
  assert.deepEqual(parseMountTable(text), [
    { target: '/', fileSystem: 'ext4', source: '/dev/sda1' },
    { target: '/var/lib/a b/\\c', fileSystem: 'ext4', source: '/dev/loop3' },
    { target: '/x', fileSystem: 'overlay', source: 'overlay' },
    { target: '/run/mü/ümlaut', fileSystem: 'fuse', source: '/dev/fuse' },
  ]);
});

test('this machine has /proc', async () => {
  const found = (await readMountTable()).find(({ target }) => target === '/proc');
  assert.equal(found?.fileSystem, 'proc');
});

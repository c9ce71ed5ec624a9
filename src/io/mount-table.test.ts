/**
 * Goal: mounts are found by their place, with any characters in it and any other fields in their lines.
 * Method: lines as kernels write them, and this machine's own table.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mountsOver, parseMountTable, readMountTable } from './mount-table.js';

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
    { target: '/', fileSystem: 'ext4', source: '/dev/sda1', options: 'rw' },
    { target: '/var/lib/a b/\\c', fileSystem: 'ext4', source: '/dev/loop3', options: 'ro' },
    { target: '/x', fileSystem: 'overlay', source: 'overlay', options: 'rw,lowerdir=/a' },
    { target: '/run/mü/ümlaut', fileSystem: 'fuse', source: '/dev/fuse', options: 'rw' },
  ]);
});

test('mountsOver() lists the mounts of a device, and the overlays over them', () => {
  const table = [
    '90 22 7:3 / /state/1/mnt ro - ext4 /dev/loop3 ro',
    '91 22 7:4 / /state/2/mnt ro - ext4 /dev/loop4 ro',
    '92 22 0:50 / /run/c rw - overlay overlay rw,lowerdir=/x:/state/1/mnt,upperdir=/u,workdir=/w',
    '93 22 0:51 / /run/d rw - overlay overlay rw,lowerdir+=/state/1/mnt,upperdir=/u',
    '94 22 0:52 / /run/e rw - overlay overlay rw,lowerdir=/state/2/mnt,upperdir=/state/1/mnt',
  ].join('\n');
  const mounts = parseMountTable(table);
  assert.deepEqual(mountsOver('/dev/loop3', mounts), ['/state/1/mnt', '/run/c', '/run/d']);
  assert.deepEqual(mountsOver('/dev/loop9', mounts), []);
});

test('this machine has /proc', async () => {
  const found = (await readMountTable()).find(({ target }) => target === '/proc');
  assert.equal(found?.fileSystem, 'proc');
});

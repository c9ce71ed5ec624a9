/**
 * Goal: mount points are read from the kernel's table with whatever bytes their names have.
 * Method: lines as proc(5) shows them, with none, one and several tags, and escapes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseMounts } from './mount-table.js';

test('path and type are found whatever tags there are, and escapes are undone', () => {
  const table = [
    '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
    '42 27 0:39 / /run/a\\040b\\134/m\\303\\274 rw,nosuid shared:7 master:2 - fuse /dev/fuse rw',
    '43 27 0:40 / /run/ümlaut rw - tmpfs none rw',
    '',
  ].join('\n');
  assert.deepEqual(parseMounts(table), [
    { path: '/mnt2', type: 'ext3' },
    { path: '/run/a b\\/mü', type: 'fuse' },
    { path: '/run/ümlaut', type: 'tmpfs' },
  ]);
});

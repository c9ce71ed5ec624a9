/**
 * Goal: a walk through the whole tree is noticed once, and nothing else counts as one.
 * Method: reads of the blocks of a real file system, in several selections.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { directoryDisk } from '../../test/support/directory-disk.js';
import { beginsDirectory } from '../ext4/directory-census.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { TreeWalk } from './tree-walk.js';

const DIRECTORIES = 300;
const { bytes, directories } = directoryDisk(16 << 20, DIRECTORIES - 2, 10_000);
const all = Array.from({ length: bytes.length / EXT4_BLOCK_BYTES }, (_, block) => block);
const isDirectory = (block: number) =>
  beginsDirectory(bytes.subarray(block * EXT4_BLOCK_BYTES, (block + 1) * EXT4_BLOCK_BYTES));
const found = all.filter(isDirectory);

/** @returns After how many reads of one block the walk was noticed. */
function noticedAfter(blocks: readonly number[], disk = bytes, error?: unknown): number[] {
  const at: number[] = [];
  let i = 0;
  const tryRead = (target: Uint8Array, offset: number) => {
    target.set(disk.subarray(offset, offset + target.length));
    return true;
  };
  const walk = new TreeWalk({ sizeBytes: disk.length, tryRead }, () => at.push(i));
  for (const block of blocks) {
    i++;
    walk.ended('read', block * EXT4_BLOCK_BYTES, EXT4_BLOCK_BYTES, 0, 'local', error);
  }
  return at;
}

test('a walk is noticed when half of the directories were read, once', () => {
  assert.equal(directories, DIRECTORIES);
  assert.deepEqual(noticedAfter(found), [DIRECTORIES / 2]);
  assert.deepEqual(noticedAfter(found.toReversed()), [DIRECTORIES / 2]);
});

test('fewer directories, the same ones again, and files are no walk', () => {
  const some = found.slice(0, DIRECTORIES / 2 - 1);
  const files = all.filter((block) => !isDirectory(block));
  assert.deepEqual(noticedAfter([...some, ...some, ...some, ...files]), []);
});

test('reads that fail, and disks without an ext4, are no walk', () => {
  assert.deepEqual(noticedAfter(found, bytes, new Error('failed')), []);
  const other = Buffer.from(bytes);
  other.fill(0, 0, EXT4_BLOCK_BYTES);
  assert.deepEqual(noticedAfter(found, other), []);
});

test('a small tree is not watched', () => {
  const small = directoryDisk(4 << 20, 50, 0).bytes;
  const blocks = Array.from({ length: small.length / EXT4_BLOCK_BYTES }, (_, block) => block);
  assert.deepEqual(noticedAfter(blocks, small), []);
});

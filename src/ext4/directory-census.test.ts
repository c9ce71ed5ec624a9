/**
 * Goal: the directories of a disk are counted, and found by their first blocks, whoever made the file system.
 * Method: file systems of ours and of mkfs.ext4, with small, large and deep directories.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { directoryDisk } from '../../test/support/directory-disk.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { beginsDirectory, countDirectories } from './directory-census.js';

function readable(bytes: Buffer) {
  const tryRead = (target: Uint8Array, offset: number) => {
    target.set(bytes.subarray(offset, offset + target.length));
    return true;
  };
  return { sizeBytes: bytes.length, tryRead };
}

function blocksOf(bytes: Buffer): Buffer[] {
  return Array.from({ length: bytes.length / EXT4_BLOCK_BYTES }, (_, i) =>
    bytes.subarray(i * EXT4_BLOCK_BYTES, (i + 1) * EXT4_BLOCK_BYTES),
  );
}

test('directories of our own file systems', () => {
  const { bytes, directories } = directoryDisk(8 << 20, 150, 1000);
  assert.equal(countDirectories(readable(bytes)), directories);
  assert.equal(blocksOf(bytes).filter(beginsDirectory).length, directories);
});

test('directories of mkfs.ext4, also one with a hash tree', () => {
  const folder = mkdtempSync(join(tmpdir(), 'census-'));
  try {
    const root = join(folder, 'root');
    for (let i = 0; i < 80; i++) mkdirSync(join(root, `d${i % 8}/e${i}`), { recursive: true });
    for (let i = 0; i < 800; i++)
      writeFileSync(join(root, 'd0', `file-with-a-long-name-${i}`), '.');
    const path = join(folder, 'disk');
    const features = '^has_journal,^metadata_csum,^resize_inode,^64bit';
    const args = ['-q', '-b', '4096', '-O', features, '-d', root, path, '32M'];
    execFileSync('mkfs.ext4', args, { stdio: 'pipe' });
    execFileSync('e2fsck', ['-f', '-y', '-D', path], { stdio: 'pipe' });
    const bytes = readFileSync(path);
    // The root, lost+found, d0 to d7, and those in them.
    assert.equal(countDirectories(readable(bytes)), 2 + 8 + 80);
    assert.equal(blocksOf(bytes).filter(beginsDirectory).length, 2 + 8 + 80);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a disk without an ext4, or whose first blocks are not here, has no count', () => {
  const { bytes } = directoryDisk(8 << 20, 5, 0);
  const absent = { sizeBytes: bytes.length, tryRead: () => false };
  assert.equal(countDirectories(absent), undefined);
  assert.equal(countDirectories(readable(Buffer.alloc(8 << 20))), undefined);
  bytes.writeUInt32LE(0, 1024 + 0x28);
  assert.equal(countDirectories(readable(bytes)), undefined);
});

/**
 * Goal: an image is mounted with the file system of its superblock, for any annotations.
 * Method: a real ext4, and the magic numbers of the others at their places, as the kernel's headers have them.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileSystemIn } from './image-mount.js';

test('fileSystemIn() finds ext4 in the output of mkfs', () => {
  const directory = mkdtempSync(join(tmpdir(), 'obd-super-'));
  try {
    const disk = join(directory, 'disk');
    execFileSync('mkfs.ext4', ['-q', '-F', disk, '1M'], { stdio: 'ignore' });
    assert.equal(fileSystemIn(readFileSync(disk).subarray(0, 4096)), 'ext4');
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('xfs and erofs are found by their magic numbers, and nothing else is', () => {
  const block = (write: (bytes: Buffer) => unknown) => {
    const bytes = Buffer.alloc(4096);
    write(bytes);
    return fileSystemIn(bytes);
  };
  assert.equal(
    block((bytes) => bytes.write('XFSB')),
    'xfs',
  );
  assert.equal(
    block((bytes) => bytes.writeUInt32LE(0xe0f5e1e2, 1024)),
    'erofs',
  );
  assert.equal(
    block((bytes) => bytes.writeUInt32BE(0xe0f5e1e2, 1024)),
    undefined,
  );
  assert.equal(
    block((bytes) => bytes.write('XFSB', 4)),
    undefined,
  );
  for (const length of [0, 1, 1025, 4096]) {
    assert.equal(fileSystemIn(Buffer.alloc(length)), undefined);
  }
});

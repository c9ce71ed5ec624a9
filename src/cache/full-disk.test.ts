/**
 * Goal: a full disk costs requests; it fails no read and leaves nothing wrong behind.
 * Method: file systems in memory that are too small, which takes root.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { BlobDouble, distinctBytes } from '../../test/support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { OpenBlob } from '../../test/support/cache-scene.js';
import { ErrorCodes, type ObdError } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { BlockCache } from './block-cache.js';

const CONTENT = distinctBytes(1_000_000);

after(removeCacheDirectories);

function run(program: string, ...args: string[]): void {
  execFileSync(program, args);
}

async function onSmallDisk(
  options: string,
  work: (cache: BlockCache, directory: string, faults: ObdError[]) => Promise<void>,
): Promise<void> {
  const directory = cacheDirectory();
  run('mount', '-t', 'tmpfs', '-o', options, 'obd-cache-test', directory);
  try {
    const faults: ObdError[] = [];
    const report = (fault: ObdError) => faults.push(fault);
    const cache = await BlockCache.open(directory, {
      capacityBytes: 1 << 30,
      reserveBytes: 0,
      report,
    });
    try {
      await work(cache, directory, faults);
    } finally {
      await cache.close();
    }
  } finally {
    run('umount', directory);
  }
}

async function assertReads(cache: BlockCache, content: Buffer): Promise<BlobDouble> {
  const ranges = new BlobDouble(content);
  const blob = await OpenBlob.open(cache, ranges);
  for (let turn = 0; turn < 2; turn++) {
    const found = Buffer.alloc(content.length);
    await readFully(blob, found, 0);
    assert.ok(found.equals(content));
  }
  blob.close();
  await new Promise((resolve) => setTimeout(resolve, 30));
  return ranges;
}

const root = process.getuid?.() === 0 ? false : 'needs root to mount a small tmpfs';

describe('a full disk', { skip: root }, () => {
  test('fails no read, and chunks are stored once there is room again', async () => {
    await onSmallDisk('size=1500k', async (cache, directory, faults) => {
      const ballast = join(directory, 'ballast');
      writeFileSync(ballast, Buffer.alloc(1_000_000));
      await assertReads(cache, CONTENT);
      assert.deepEqual(
        faults.map(({ code }) => code),
        [ErrorCodes.NoSpace],
      );
      rmSync(ballast);
      await assertReads(cache, CONTENT);
      assert.deepEqual((await assertReads(cache, CONTENT)).requests, []);
    });
  });

  test('evicts blobs that are not open', async () => {
    await onSmallDisk('size=1500k', async (cache, _directory, faults) => {
      await assertReads(cache, CONTENT);
      await assertReads(cache, distinctBytes(1_000_000, 2));
      assert.deepEqual(faults, []);
      assert.ok((await assertReads(cache, CONTENT)).requests.length > 0);
    });
  });

  test('without room even for a new file fails no read', async () => {
    await onSmallDisk('nr_inodes=5', async (cache, directory, faults) => {
      writeFileSync(join(directory, 'ballast'), '');
      await assertReads(cache, CONTENT);
      assert.equal(faults[0]?.code, ErrorCodes.NoSpace);
    });
  });
});

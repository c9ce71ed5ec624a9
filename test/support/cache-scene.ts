/** A cache in a new directory, and a blob whose every byte is known, for tests. */
import assert from 'node:assert/strict';
import { BlockCache, type BlockCacheOptions } from '../../src/cache/block-cache.js';
import { CHUNK_BYTES } from '../../src/cache/chunk-set.js';
import type { ObdError } from '../../src/errors.js';
import { type RandomAccessFile, readFully } from '../../src/io/random-access-file.js';
import { distinctBytes } from './blob-double.js';
import { cacheDirectory } from './cache-directories.js';

export const ROOM = { capacityBytes: 1 << 30, reserveBytes: 0 };
/** 40 chunks and a part of one. */
export const CONTENT = distinctBytes(40 * CHUNK_BYTES + 1234);

export async function read(
  file: RandomAccessFile,
  offset: number,
  length: number,
): Promise<Buffer> {
  const target = Buffer.alloc(length, 0xee);
  await readFully(file, target, offset);
  return target;
}

/** Reads a range of CONTENT. */
export async function assertReads(
  file: RandomAccessFile,
  offset: number,
  length: number,
): Promise<void> {
  const found = await read(file, offset, length);
  assert.ok(found.equals(CONTENT.subarray(offset, offset + length)), `[${offset}, +${length})`);
}

/** Runs `work` on a cache and the list of faults it survives, then closes the cache. */
export async function withCache<T>(
  work: (cache: BlockCache, directory: string, faults: ObdError[]) => Promise<T>,
  options: Omit<BlockCacheOptions, 'report'> = ROOM,
  directory = cacheDirectory(),
): Promise<T> {
  const faults: ObdError[] = [];
  const cache = await BlockCache.open(directory, {
    ...options,
    report: (fault) => faults.push(fault),
  });
  try {
    return await work(cache, directory, faults);
  } finally {
    await cache.close();
  }
}

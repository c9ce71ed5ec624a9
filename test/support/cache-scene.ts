/** A cache in a new directory, and a blob whose every byte is known, for tests. */
import assert from 'node:assert/strict';
import type { BlobHandle, BlobStats } from '../../src/cache/blob-handle.js';
import { BlobReader } from '../../src/cache/blob-reader.js';
import type { BlobSource } from '../../src/cache/blob-source.js';
import { BlockCache, type BlockCacheOptions } from '../../src/cache/block-cache.js';
import type { ImageReads } from '../../src/cache/image-reads.js';
import { OverflowChunks } from '../../src/cache/overflow-chunks.js';
import type { ObdError } from '../../src/errors.js';
import { CHUNK_BYTES, type RandomAccessFile, readFully } from '../../src/io/random-access-file.js';
import { distinctBytes } from './blob-double.js';
import { cacheDirectory } from './cache-directories.js';

export const ROOM = { capacityBytes: 1 << 30, reserveBytes: 0 };
/** 40 chunks and a part of one. */
export const CONTENT = distinctBytes(40 * CHUNK_BYTES + 1234);

/** A blob's reader, whose link is its handle, without a thread between them. */
export class OpenBlob extends BlobReader implements BlobStats {
  readonly handle: BlobHandle;

  private constructor(handle: BlobHandle) {
    super(handle.share(), new OverflowChunks(), handle);
    this.handle = handle;
  }

  static async open(cache: BlockCache, source: BlobSource, image?: ImageReads): Promise<OpenBlob> {
    return new OpenBlob(await cache.openBlob(source, image));
  }

  get cachedBytes(): number {
    return this.handle.cachedBytes;
  }

  get fetchedBytes(): number {
    return this.handle.fetchedBytes;
  }

  get fetchRequests(): number {
    return this.handle.fetchRequests;
  }

  waits(): ReturnType<BlobHandle['waits']> {
    return this.handle.waits();
  }
}

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

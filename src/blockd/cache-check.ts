/**
 * Checks what the cache holds of a blob, without its registry: `obdctl cache verify`.
 *
 * Only the digest proves a blob, so only a blob that is stored as a whole is checked. Reads check the blocks of any blob by their
 * CRCs. Hot pages have no digest as a whole: each is checked against its CRC when it is read. The file is read piece by piece, so that the daemon continues to serve devices.
 */
import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { BlobHandle } from '../cache/blob-handle.js';
import { BlobReader } from '../cache/blob-reader.js';
import type { BlockCache } from '../cache/block-cache.js';
import { OverflowChunks } from '../cache/overflow-chunks.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { isHotPages } from './hot-images.js';

const PIECE_BYTES = 1 << 20;

export interface CacheCheck {
  readonly checkedBytes: number;
  readonly uncheckedBytes: number;
  readonly droppedBytes: number;
}

/** @throws {ObdError} `NotFound` for a blob that is not in the cache; `Io`. */
export async function checkBlob(
  cache: Pick<BlockCache, 'keyOf' | 'openBlob'>,
  registry: string,
  digest: string,
): Promise<CacheCheck> {
  const key = await cache.keyOf(registry, digest);
  const label = `${digest.slice(0, 100)} of ${registry.slice(0, 300)}`;
  if (key === undefined) {
    throw new ObdError(ErrorCodes.NotFound, `Cannot verify ${label}: it is not in the cache`);
  }
  const attempt = async () => {
    const message = `Cannot verify ${label}: a part of it was evicted during the check; run it again`;
    throw new ObdError(ErrorCodes.FailedPrecondition, message);
  };
  return await checkHandle(await cache.openBlob({ key, label, attempt }));
}

/** Checks the blob of an open handle, and closes the handle. A blob that fails is dropped. @throws {ObdError} `Io`. */
export async function checkHandle(handle: BlobHandle): Promise<CacheCheck> {
  const reader = new BlobReader(handle.share(), new OverflowChunks(), handle, false);
  try {
    return await check(handle, reader);
  } finally {
    // Closes the handle, too.
    reader.close();
  }
}

async function check(handle: BlobHandle, reader: BlobReader): Promise<CacheCheck> {
  const { cachedBytes, generation } = handle;
  const { origin, digest, sizeBytes } = handle.source.key;
  const unchecked = { checkedBytes: 0, uncheckedBytes: cachedBytes, droppedBytes: 0 };
  if (isHotPages(origin)) return unchecked;
  const found = await digestOf(handle, reader);
  // Chunks that were evicted during the check may have been read as holes.
  if (found === undefined || handle.generation !== generation) return unchecked;
  const droppedBytes = found === digest ? 0 : handle.invalidate(0, sizeBytes);
  return { checkedBytes: cachedBytes, uncheckedBytes: 0, droppedBytes };
}

/** Undefined if a part of the blob is not on the disk. */
async function digestOf(handle: BlobHandle, reader: BlobReader): Promise<string | undefined> {
  // Its chunks are not those that an image needs to open.
  reader.opened();
  const hash = createHash('sha256');
  const { sizeBytes } = reader;
  const piece = Buffer.alloc(Math.min(PIECE_BYTES, sizeBytes));
  for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
    if (handle.missingFrom(0, 1) !== undefined) return undefined;
    const part = piece.subarray(0, Math.min(PIECE_BYTES, sizeBytes - at));
    await readFully(reader, part, at);
    hash.update(part);
    await nextTurn();
  }
  return `sha256:${hash.digest('hex')}`;
}

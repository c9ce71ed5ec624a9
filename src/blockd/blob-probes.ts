/**
 * Asks registries for the blobs of layers that are about to be recorded, by fetching what opening an image of them needs: so
 * the requests that a pull waits for are those that an attach would make, and are not made twice.
 */
import { BlobReader } from '../cache/blob-reader.js';
import type { BlobSource } from '../cache/blob-source.js';
import type { BlockCache } from '../cache/block-cache.js';
import { CHUNK_BYTES } from '../cache/chunk-set.js';
import { OverflowChunks } from '../cache/overflow-chunks.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlobAddress } from '../image/open-image.js';
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { readFully } from '../io/random-access-file.js';
import { type BlobPart, OPENING_BYTES_MAX } from '../layers/opening-parts.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { rootOf } from '../zfile/hash-tree-layout.js';
import { registrySource } from './registry-source.js';

/** While an image is opened, an answer other than the bytes ends the read: see FetchOptions. */
const OPENING = { urgency: 'demand', waitMs: undefined } as const;

/** Parts that one probe fetches. */
const PARTS_MAX = 8;

export class BlobProbes {
  readonly #cache: Pick<BlockCache, 'openBlob'>;
  readonly #client: Pick<RegistryClient, 'blobRanges' | 'probeBlob'>;

  constructor(
    cache: Pick<BlockCache, 'openBlob'>,
    client: Pick<RegistryClient, 'blobRanges' | 'probeBlob'>,
  ) {
    this.#cache = cache;
    this.#client = client;
  }

  /**
   * Resolves when the first bytes of the blob have come, and all of the parts that have digests; the rest comes in the
   * background. At least one request is made, also if all of them are cached.
   *
   * @throws {ObdError} the registry's first failure: `NotFound`, `Unauthorized`, `Unavailable`, `Registry`; `InvalidArgument`
   *   for an address or for parts that are none; `Corrupt` if no source has a part with its digest; the signal's reason.
   */
  async probe(
    { host, repository, digest, sizeBytes = 0 }: BlobAddress,
    parts: readonly BlobPart[],
    signal: AbortSignal,
  ): Promise<void> {
    checkParts(parts, sizeBytes, digest);
    const ranges = await this.#client.blobRanges(host, repository, digest, sizeBytes);
    const { source, failure } = failingOnce(registrySource(ranges));
    const blob = await this.#cache.openBlob(source);
    // All in one turn, so that the parts of a small blob share one request.
    const all = Promise.all(parts.map(({ offset, length }) => blob.fetch(offset, length, OPENING)));
    const reader = new BlobReader(blob.share(), new OverflowChunks(), blob);
    const proved = Promise.all(parts.map((part) => checkDigest(reader, part)));
    void Promise.allSettled([all, proved]).then(() => reader.close());
    const first = parts.map(({ offset, length }) =>
      blob.fetch(offset, Math.min(CHUNK_BYTES, length), OPENING),
    );
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    aborted.catch(() => {});
    try {
      signal.throwIfAborted();
      await Promise.race([...first, failure, aborted]);
      await Promise.race([proved, aborted]);
    } catch (error) {
      reader.close();
      throw error;
    } finally {
      for (const each of first) each.catch(() => {});
    }
    if (blob.fetchRequests > 0) return;
    await this.#client.probeBlob(host, repository, digest, signal, { sizeBytes });
  }
}

/** Bytes that have another digest are fetched again, from another source if there is one. @throws {ObdError} `Corrupt`. */
async function checkDigest(
  reader: BlobReader,
  { offset, length, digest }: BlobPart,
): Promise<void> {
  if (!digest) return;
  const bytes = Buffer.alloc(length);
  await refetchWhileCorrupt(reader, offset, length, async () => {
    await readFully(reader, bytes, offset);
    const found = rootOf(bytes);
    if (found === digest) return;
    const rule = `these ${length} bytes have the digest ${found}, and the image names ${digest}`;
    throw corrupt(reader, offset, rule);
  });
}

/** @throws {ObdError} `InvalidArgument`. */
function checkParts(parts: readonly BlobPart[], sizeBytes: number, digest: string): void {
  const isWithin = ({ offset, length }: BlobPart) =>
    offset >= 0 && length > 0 && offset + length <= sizeBytes;
  const bytes = parts.reduce((sum, { length }) => sum + length, 0);
  const isSound = parts.length > 0 && parts.length <= PARTS_MAX && bytes <= OPENING_BYTES_MAX;
  if (isSound && parts.every(isWithin)) return;
  const message = `Cannot ask for ${digest}: 1 to ${PARTS_MAX} parts within its ${sizeBytes} bytes, of ${OPENING_BYTES_MAX} bytes at most, are needed`;
  throw new ObdError(ErrorCodes.InvalidArgument, message, { digest });
}

/** The source, and a promise that rejects with its first failure: the cache would ask an unavailable registry again. */
function failingOnce(source: BlobSource): { source: BlobSource; failure: Promise<never> } {
  let reject: (error: unknown) => void = () => {};
  const failure = new Promise<never>((_, fail) => {
    reject = fail;
  });
  failure.catch(() => {});
  const attempt: BlobSource['attempt'] = async (fill, options) => {
    try {
      return await source.attempt(fill, options);
    } catch (error) {
      reject(error);
      throw error;
    }
  };
  return { source: { ...source, attempt }, failure };
}

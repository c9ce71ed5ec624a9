/**
 * Asks registries for the blobs of layers that are about to be recorded, by fetching what opening an image of them needs: so
 * the requests that a pull waits for are those that an attach would make, and are not made twice.
 */
import type { BlobKey } from '../cache/blob-key.js';
import { BlobReader } from '../cache/blob-reader.js';
import type { BlobSource } from '../cache/blob-source.js';
import type { BlockCache } from '../cache/block-cache.js';
import { OverflowChunks } from '../cache/overflow-chunks.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlobAddress } from '../image/open-image.js';
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { CHUNK_BYTES, readFully } from '../io/random-access-file.js';
import { type BlobPart, OPENING_BYTES_MAX } from '../layers/opening-parts.js';
import { brokenPromise } from '../registry/blob-probe.js';
import type { RegistryClient } from '../registry/registry-client.js';
import { rootOf } from '../zfile/hash-tree-layout.js';
import { registrySource } from './registry-source.js';

/** While an image is opened, an answer other than the bytes ends the read: see FetchOptions. */
const OPENING = { urgency: 'demand', waitMs: undefined } as const;

/** Parts that one probe fetches. */
const PARTS_MAX = 8;
/**
 * For a larger blob, one byte is requested and nothing is cached. Its size is what an image says, and an open blob has
 * memory and room on the disk by its size, which only an attach charges: 300 KB for this one, 79 MB for 1 TiB.
 */
const CACHED_BLOB_BYTES_MAX = 4 * 2 ** 30;

export class BlobProbes {
  readonly #cache: Pick<BlockCache, 'openBlob' | 'keyOf'>;
  readonly #client: Pick<RegistryClient, 'blobRanges' | 'probeBlob'>;

  constructor(
    cache: Pick<BlockCache, 'openBlob' | 'keyOf'>,
    client: Pick<RegistryClient, 'blobRanges' | 'probeBlob'>,
  ) {
    this.#cache = cache;
    this.#client = client;
  }

  /**
   * Resolves when the repository itself has given bytes of the blob, and all of the parts that have digests have come; the
   * rest comes in the background. Cached bytes, and those of another repository, do not count.
   *
   * @throws {ObdError} the registry's first failure: `NotFound`, `Unauthorized`, `Unavailable`, `Registry`; `InvalidArgument`
   *   for an address or for parts that are none; `Corrupt` if no source has a part with its digest; the signal's reason.
   */
  async probe(
    address: BlobAddress,
    parts: readonly BlobPart[],
    signal: AbortSignal,
  ): Promise<void> {
    const { host, repository, digest, sizeBytes = 0 } = address;
    checkParts(parts, sizeBytes, digest);
    const ranges = await this.#client.blobRanges(host, repository, digest, sizeBytes);
    const watched = watch(registrySource(ranges));
    if (await this.#mayOpen(watched.source.key)) await this.#fetch(watched, parts, signal);
    if (!watched.hasGiven()) await this.#ask(address, parts, signal);
  }

  /** Opening a blob whose cached size is another one would remove it from the cache: the image may be wrong. */
  async #mayOpen({ origin, digest, sizeBytes }: BlobKey): Promise<boolean> {
    if (sizeBytes > CACHED_BLOB_BYTES_MAX) return false;
    const cached = await this.#cache.keyOf(origin, digest);
    return cached === undefined || cached.sizeBytes === sizeBytes;
  }

  async #fetch(
    { source, failure }: WatchedSource,
    parts: readonly BlobPart[],
    signal: AbortSignal,
  ): Promise<void> {
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
      await Promise.race([proved, failure, aborted]);
    } catch (error) {
      reader.close();
      throw error;
    } finally {
      for (const each of first) each.catch(() => {});
    }
  }

  /**
   * Asks for one byte, or for a part with a digest.
   *
   * @throws {ObdError} `Registry` for another size than its image says, `Corrupt` for another digest; as RegistryClient.probeBlob().
   */
  async #ask(
    { host, repository, digest, sizeBytes }: BlobAddress,
    parts: readonly BlobPart[],
    signal: AbortSignal,
  ): Promise<void> {
    const promise = { sizeBytes, part: parts.find(hasDigest) };
    const found = await this.#client.probeBlob(host, repository, digest, signal, promise);
    const problem = brokenPromise(found, promise);
    if (problem === undefined) return;
    const isSize = found.sizeBytes !== undefined && found.sizeBytes !== sizeBytes;
    const code = isSize ? ErrorCodes.Registry : ErrorCodes.Corrupt;
    const message = `Cannot use ${digest} of ${host}/${repository}: ${problem}`;
    throw new ObdError(code, message, { digest });
  }
}

function hasDigest(part: BlobPart): part is BlobPart & { readonly digest: string } {
  // Protocol buffers have an empty text where there is none.
  return Boolean(part.digest);
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

interface WatchedSource {
  readonly source: BlobSource;
  /** Rejects with the first failure: the cache would ask an unavailable registry again. */
  readonly failure: Promise<never>;
  /** Whether any bytes have come. */
  hasGiven(): boolean;
}

function watch(source: BlobSource): WatchedSource {
  let hasGiven = false;
  let reject: (error: unknown) => void = () => {};
  const failure = new Promise<never>((_, fail) => {
    reject = fail;
  });
  failure.catch(() => {});
  const attempt: BlobSource['attempt'] = async (fill, options) => {
    const { progressed } = fill;
    fill.progressed = () => {
      hasGiven = true;
      progressed();
    };
    try {
      const whole = await source.attempt(fill, options);
      hasGiven = true;
      return whole;
    } catch (error) {
      reject(error);
      throw error;
    }
  };
  return { source: { ...source, attempt }, failure, hasGiven: () => hasGiven };
}

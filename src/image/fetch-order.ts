/** The order in which a start is known to need the chunks of its image's blobs. */
import { CHUNK_BYTES, type RandomAccessFile, type StoredRange } from '../io/random-access-file.js';

/** 512 MiB: more than any start reads, and what one image may fetch by such advice. */
const CHUNKS_MAX = 8192;

/** Plain numbers, so that it can be sent to another thread. */
export interface FetchOrder {
  /** The blobs. */
  readonly digests: readonly string[];
  /** Pairs of a blob's place in `digests` and the number of its chunk. No pair is there twice. */
  readonly chunks: Uint32Array;
}

/** Takes the chunks of the ranges, each at its first use, up to CHUNKS_MAX. */
export function fetchOrder(
  ranges: Iterable<StoredRange>,
  blobs: readonly (RandomAccessFile & { readonly digest: string })[],
): FetchOrder {
  const placeOf = new Map<RandomAccessFile, number>(blobs.map((blob, place) => [blob, place]));
  const digests = blobs.map(({ digest }) => digest);
  const seen = blobs.map(() => new Set<number>());
  const chunks: number[] = [];
  for (const { blob, offset, length } of ranges) {
    const place = placeOf.get(blob);
    if (place === undefined) continue;
    for (
      let chunk = Math.floor(offset / CHUNK_BYTES);
      chunk * CHUNK_BYTES < offset + length;
      chunk++
    ) {
      if (seen[place]!.has(chunk)) continue;
      if (chunks.length === 2 * CHUNKS_MAX) return { digests, chunks: Uint32Array.from(chunks) };
      seen[place]!.add(chunk);
      chunks.push(place, chunk);
    }
  }
  return { digests, chunks: Uint32Array.from(chunks) };
}

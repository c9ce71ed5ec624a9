/** The order in which a start is known to need the chunks of its image's blobs. */
import { CHUNK_BYTES, type RandomAccessFile, type StoredRange } from '../io/random-access-file.js';
import { FirstUses } from '../load-order/first-uses.js';

/** Plain numbers, so that it can be sent to another thread. */
export interface FetchOrder {
  /** The blobs. */
  readonly digests: readonly string[];
  /** Pairs of a blob's place in `digests` and the number of its chunk. No pair is there twice. */
  readonly chunks: Uint32Array;
}

/** Takes the chunks of the ranges, each at its first use, as many as a load order may have. */
export function fetchOrder(
  ranges: Iterable<StoredRange>,
  blobs: readonly (RandomAccessFile & { readonly digest: string })[],
): FetchOrder {
  const placeOf = new Map<RandomAccessFile, number>(blobs.map((blob, place) => [blob, place]));
  const uses = new FirstUses();
  for (const { blob, offset, length } of ranges) {
    const place = placeOf.get(blob);
    if (place === undefined) continue;
    if (uses.hasAllChunks) break;
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    for (let chunk = Math.floor(offset / CHUNK_BYTES); chunk < end; chunk++) {
      uses.addChunk(place, chunk);
    }
  }
  return { digests: blobs.map(({ digest }) => digest), chunks: uses.chunks };
}

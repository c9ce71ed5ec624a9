/**
 * Detects a start that reads most of an image, and fetches the rest of the image then.
 *
 * The measure is the share of fetched chunks that were read, over all blobs of the image. A sparse start reads a third to two
 * thirds of the granules that its misses bring; one that packs, copies or checks the image in order reads nearly all of
 * them. A start that reads most in another order shows only by its share of the image: MOST_SHARE, which no start of a program
 * reached. Each blob's missing chunks then come in the background, many requests at once, in the order of the blob.
 *
 * A sweep of one large file reads all of that, which says nothing of the rest: its chunks do not count, and while it keeps the link
 * busy nothing is streamed.
 *
 * Chunks that they bring and no read uses lower the measure, and end the stream. So the fetched chunks are at most about
 * twice the chunks that were read, plus DENSE_BYTES_MIN, or the read chunks divided by MOST_SHARE.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';

/** Before so much was read, the measure says little: the parts that open an image are read whole. */
const DENSE_BYTES_MIN = 4 << 20;
const DENSE_SHARE = 0.8;
/** Ends the stream. Less than DENSE_SHARE, as a reader needs time to use what was streamed. */
const SPARSE_SHARE = 0.5;
/** Of the image. The JVM of the benchmark reads a third of its image, Python a fifth. */
const MOST_SHARE = 0.4;

/** A blob of the image. */
export interface StreamableBlob {
  readonly chunks: number;
  /** Chunks that were fetched, and those of them that were read. */
  readonly fetchedCount: number;
  readonly readCount: number;
  /** Whether a sweep keeps the link busy. */
  readonly isSweeping: boolean;
  /** Chunks that such sweeps have passed. */
  readonly sweptCount: number;
  /** Fetches some missing chunks in the background, unless enough of such fetches are queued. */
  stream(): void;
}

export class ImageReads {
  /** The start is fetched in a known order: that nearly all of it is read then says nothing about the rest. */
  isKnown = false;
  readonly #blobs = new Set<StreamableBlob>();
  #isDense = false;

  add(blob: StreamableBlob): void {
    this.#blobs.add(blob);
  }

  delete(blob: StreamableBlob): void {
    this.#blobs.delete(blob);
  }

  /** Call it when a fetch of the image begins or ends. */
  advance(): void {
    let chunks = 0;
    let fetched = 0;
    let read = 0;
    let isSweeping = false;
    for (const blob of this.#blobs) {
      chunks += blob.chunks;
      fetched += blob.fetchedCount - blob.sweptCount;
      read += blob.readCount - blob.sweptCount;
      isSweeping ||= blob.isSweeping;
    }
    const share = read / Math.max(1, fetched);
    const isMeasured = read * CHUNK_BYTES >= DENSE_BYTES_MIN;
    const isDense = (share >= DENSE_SHARE && !this.isKnown) || read >= chunks * MOST_SHARE;
    if (isSweeping || share < SPARSE_SHARE) this.#isDense = false;
    else if (isMeasured && isDense) this.#isDense = true;
    if (!this.#isDense) return;
    for (const blob of this.#blobs) blob.stream();
  }
}

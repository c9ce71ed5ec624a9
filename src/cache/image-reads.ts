/**
 * Detects a start that reads most of an image, and fetches the rest of the image then.
 *
 * The measure is the share of fetched chunks that were read, over all blobs of the image. A sparse start reads a third to two
 * thirds of the granules that its misses bring; one that packs, copies or checks the image in order reads nearly all of
 * them. A start that reads most in another order shows only by its share of the image: MOST_SHARE, which no start of a program
 * reached. Each blob's missing chunks then come in the background, many requests at once, in the order of the blob.
 *
 * A start that walks through the whole tree (src/blockd/tree-walk.ts) and has read WALKED_READ_SHARE of the image is going to read most
 * of it, which the other measures show only much later: it streams while a quarter of what was fetched is read.
 *
 * A sweep of one large file reads all of that, which says nothing of the rest: its chunks do not count, and while it keeps the link
 * busy nothing is streamed.
 *
 * Chunks that they bring and no read uses lower the measure, and end the stream. So the fetched chunks are at most about
 * twice the chunks that were read, plus DENSE_BYTES_MIN, or the read chunks divided by MOST_SHARE; or by WALKED_READ_SHARE, for a start
 * whose files are read ahead into the kernel's cache, since these reads count too.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';

/** Before so much was read, the measure says little: the parts that open an image are read whole. */
const DENSE_BYTES_MIN = 4 << 20;
const DENSE_SHARE = 0.8;
/** Ends the stream. Less than DENSE_SHARE, as a reader needs time to use what was streamed. */
const SPARSE_SHARE = 0.5;
/** Of the image. The JVM of the benchmark reads a third of its image, Python a fifth. */
const MOST_SHARE = 0.4;
/** The same for a start that has walked through the tree. A walk that reads no files, as `find` makes it, stays below it. */
const WALKED_READ_SHARE = 0.1;
/** As DENSE_SHARE and SPARSE_SHARE, for a start that has walked through the tree. */
const WALKED_DENSE_SHARE = 0.4;
const WALKED_SPARSE_SHARE = 0.25;

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
  /** The start has walked through the whole tree. */
  isWalked = false;
  /** Called once, when it is clear that most of the image will be read. */
  onMost: () => void = () => {};
  readonly #blobs = new Set<StreamableBlob>();
  #isDense = false;
  #isMost = false;

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
    const isWalker =
      this.isWalked && read >= chunks * WALKED_READ_SHARE && share >= WALKED_DENSE_SHARE;
    const isMost = isWalker || read >= chunks * MOST_SHARE;
    const isDense = isMost || (share >= DENSE_SHARE && !this.isKnown);
    const sparseShare = this.isWalked ? WALKED_SPARSE_SHARE : SPARSE_SHARE;
    if (isSweeping || share < sparseShare) this.#isDense = false;
    else if (isMeasured && isDense) this.#isDense = true;
    if (!this.#isDense) return;
    if (isMost && !this.#isMost) {
      this.#isMost = true;
      this.onMost();
    }
    for (const blob of this.#blobs) blob.stream();
  }
}

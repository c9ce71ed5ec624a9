/** Turns reads of an image's disk into the load order of its layers. */
import { CHUNK_BYTES, type RandomAccessFile } from '../io/random-access-file.js';
import type { LayerStack } from '../lsmt/layer-stack.js';
import { FirstUses } from './first-uses.js';
import type { LoadOrder, OrderLayer } from './load-order.js';

/** A leaf of a hash tree, and a page of the kernel's cache. */
const PAGE_BYTES = 4096;
/** A disk of many fragments has hundreds of ranges in one read; a start of Tomcat has 15,000. */
const RANGES_MAX = 1 << 18;

/** A read of the disk, in bytes, with its time after the first one. */
export interface TimedRead {
  readonly offset: number;
  readonly length: number;
  readonly ms: number;
}

export interface OrderedImage {
  readonly disk: LayerStack;
  /** The layers' files without tar and compression, bottom first. */
  readonly files: readonly RandomAccessFile[];
  /** Their blobs, in the same order. */
  readonly layers: readonly OrderLayer[];
}

/**
 * The pages and chunks of the reads, each at its first use; what a document has no room for is left out.
 *
 * @param about - For a recorded order the read-ahead of the device, in bytes; other orders count no start.
 */
export function orderOf(
  reads: Iterable<TimedRead>,
  { disk, files, layers }: OrderedImage,
  about: Pick<LoadOrder, 'kind' | 'readAheadBytes'>,
): LoadOrder {
  const starts = about.kind === 'recorded' ? 1 : 0;
  const uses = new FirstUses();
  for (const { layer, start, end, ms } of layerReads(reads, disk, files)) {
    if (uses.isFull) break;
    const file = files[layer]!;
    const leaf = Math.floor(start / PAGE_BYTES);
    const pageEnd = Math.ceil(end / PAGE_BYTES);
    const run = { layer, leaf, count: pageEnd - leaf, ms: Math.round(ms), starts };
    if (!uses.addPages(run)) continue;
    const from = leaf * PAGE_BYTES;
    const length = Math.min(pageEnd * PAGE_BYTES, file.sizeBytes) - from;
    for (const stored of file.storedRanges?.(from, length) ?? []) {
      const chunkEnd = Math.ceil((stored.offset + stored.length) / CHUNK_BYTES);
      for (let chunk = Math.floor(stored.offset / CHUNK_BYTES); chunk < chunkEnd; chunk++) {
        uses.addChunk(layer, chunk);
      }
    }
  }
  return { ...about, starts, layers, runs: uses.runs, chunks: uses.chunks };
}

interface LayerRead {
  readonly layer: number;
  readonly start: number;
  readonly end: number;
  readonly ms: number;
}

/** The ranges of the layers' files that the reads need, up to RANGES_MAX. */
function* layerReads(
  reads: Iterable<TimedRead>,
  disk: LayerStack,
  files: readonly RandomAccessFile[],
): Generator<LayerRead> {
  const layerOf = new Map(files.map((file, layer) => [file, layer]));
  let ranges = 0;
  for (const { offset, length, ms } of reads) {
    // A read of a hole has no range, and an endless list of them must end, too.
    if (++ranges > RANGES_MAX) return;
    for (const { source, start, end } of disk.sourceRanges(offset, length)) {
      if (++ranges > RANGES_MAX) return;
      const layer = layerOf.get(source);
      // A TurboOCI layer reads the original tar, too.
      if (layer !== undefined) yield { layer, start, end, ms };
    }
  }
}

/** Traces of reads of a disk (docs/formats/trace.md), for tests of their readers. */
import type { RandomAccessFile } from '../../src/io/random-access-file.js';
import { encodeTrace, TRACED_READS_MAX, type TracedRead } from '../../src/layers/read-trace.js';
import type { LayerStack } from '../../src/lsmt/layer-stack.js';

/** The trace of the first reads of the disk, in their order. @param files - As tracedRanges() takes them. */
export function traceOf(
  reads: Iterable<{ readonly offset: number; readonly length: number }>,
  disk: LayerStack,
  files: readonly RandomAccessFile[],
): Buffer {
  const layerOf = new Map(files.map((file, layer) => [file, layer]));
  const traced: TracedRead[] = [];
  for (const { offset, length } of reads) {
    // A disk of many fragments has hundreds of ranges in one read.
    if (traced.length >= TRACED_READS_MAX) break;
    for (const { source, start, end } of disk.sourceRanges(offset, length)) {
      const layer = layerOf.get(source);
      // A TurboOCI layer reads the original tar, too.
      if (layer === undefined) continue;
      traced.push({ layer, offset: start, length: end - start });
    }
  }
  return encodeTrace(traced.slice(0, TRACED_READS_MAX));
}

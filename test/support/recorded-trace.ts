/** Writes traces as overlaybd does (docs/formats/trace.md), for tests of their readers. */
import type { RandomAccessFile } from '../../src/io/random-access-file.js';
import { TRACE_BYTES_MAX, TRACED_READS_MAX, type TracedRead } from '../../src/layers/read-trace.js';
import type { LayerStack } from '../../src/lsmt/layer-stack.js';
import { rawCrc32c } from '../../src/zfile/raw-crc32c.js';

const HEADER_BYTES = 24;
const RECORD_BYTES = 24;
const MAGIC = 0xc2ef1820;
const READ = 0x52;

/** @throws {RangeError} for more reads than a trace may have. */
export function encodeTrace(reads: readonly TracedRead[]): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + reads.length * RECORD_BYTES);
  if (bytes.length > TRACE_BYTES_MAX) throw new RangeError(`${reads.length} reads in one trace`);
  const records = bytes.subarray(HEADER_BYTES);
  for (const [i, { layer, offset, length }] of reads.entries()) {
    const at = i * RECORD_BYTES;
    records[at] = READ;
    records.writeUInt32LE(layer, at + 4);
    records.writeBigUInt64LE(BigInt(length), at + 8);
    records.writeBigInt64LE(BigInt(offset), at + 16);
  }
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeBigUInt64LE(BigInt(records.length), 8);
  bytes.writeUInt32LE(rawCrc32c(records, 0), 16);
  return bytes;
}

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

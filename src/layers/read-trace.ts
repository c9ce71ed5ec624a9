/**
 * The trace of an overlaybd image: the reads of a recorded start, in their order (docs/formats/trace.md).
 *
 * A trace is advice. Its checksum shows damage, and not the author, so a user of traces limits what one can do.
 */
import { corrupt } from '../io/format-error.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';

const HEADER_BYTES = 24;
const RECORD_BYTES = 24;
/** The CRC-32 of "Container Image Trace Format". */
const MAGIC = 0xc2ef1820;
const READ = 0x52;
/** 87,000 reads; a start of Tomcat makes some thousand. */
export const TRACE_BYTES_MAX = 2 << 20;

export const TRACED_READS_MAX = Math.floor((TRACE_BYTES_MAX - HEADER_BYTES) / RECORD_BYTES);

/** A read of a layer's file, as it is without tar and compression. Offset and length are in bytes. */
export interface TracedRead {
  /** Counted from the bottom, from 0 on. */
  readonly layer: number;
  readonly offset: number;
  readonly length: number;
}

/** @throws {ObdError} `Corrupt`, naming `file` and the rule. */
export function parseTrace(bytes: Buffer, file: { readonly label: string }): TracedRead[] {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC) {
    throw corrupt(file, 0, 'it is no trace of reads');
  }
  const records = bytes.subarray(HEADER_BYTES);
  if (bytes.readBigUInt64LE(8) !== BigInt(records.length) || records.length % RECORD_BYTES !== 0) {
    throw corrupt(file, 8, `its header does not fit the ${records.length} bytes behind it`);
  }
  if (bytes.readUInt32LE(16) !== rawCrc32c(records, 0)) {
    throw corrupt(file, 16, 'its reads fail their CRC');
  }
  const reads: TracedRead[] = [];
  for (let at = 0; at < records.length; at += RECORD_BYTES) {
    if (records[at] !== READ) continue;
    const layer = records.readUInt32LE(at + 4);
    const length = Number(records.readBigUInt64LE(at + 8));
    const offset = Number(records.readBigInt64LE(at + 16));
    if (!(offset >= 0 && Number.isSafeInteger(offset + length))) {
      throw corrupt(file, HEADER_BYTES + at, `a read of ${length} bytes at ${offset}`);
    }
    reads.push({ layer, offset, length });
  }
  return reads;
}

/** The bytes of a trace. @throws {RangeError} for more reads than a trace may have. */
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

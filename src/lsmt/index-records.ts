/**
 * The 16-byte records that every stored index is made of, little-endian, in sectors of 512 bytes:
 *
 *   bits   0..49  virtual offset        bits  64..118  offset in the data (moffset)
 *   bits  50..63  length, 1..16383      bit   119      zeroed: reads as zeroes, has no data
 *                                       bits 120..127  tag
 *
 * A record whose virtual offset is all ones is padding, and is skipped wherever it stands.
 *
 * readRecords() reads in pieces of 64 KiB, so that memory grows only with bytes that really came.
 */
import { corrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';

export const RECORD_BYTES = 16;
/** 14 bits. */
export const LENGTH_MAX = 16383;

const PIECE_BYTES = 64 * 1024;
const OFFSET_HIGH_MASK = 0x3ffff; // 50 - 32 bits
const MOFFSET_HIGH_MASK = 0x7fffff; // 55 - 32 bits
const INVALID_OFFSET = 2 ** 50 - 1;

/** One record. `moffset` may be past 2^53, and then inexact: compare it with a limit before use. */
export interface IndexRecord {
  start: number;
  end: number;
  moffset: number;
  zeroed: boolean;
  tag: number;
}

/**
 * Reads `count` records from `at` on and hands each but padding to `take`, with its byte offset in
 * the file. The record object is reused.
 *
 * @throws {ObdError} `Corrupt` for an empty segment, and what reading or `take` throws.
 */
export async function readRecords(
  source: RandomAccessFile,
  at: number,
  count: number,
  take: (record: Readonly<IndexRecord>, recordAt: number) => void,
): Promise<void> {
  const piece = Buffer.alloc(Math.min(PIECE_BYTES, count * RECORD_BYTES));
  const record: IndexRecord = { start: 0, end: 0, moffset: 0, zeroed: false, tag: 0 };
  const end = at + count * RECORD_BYTES;
  for (let pieceAt = at; pieceAt < end; pieceAt += PIECE_BYTES) {
    const bytes = piece.subarray(0, Math.min(PIECE_BYTES, end - pieceAt));
    await readFully(source, bytes, pieceAt);
    for (let i = 0; i < bytes.length; i += RECORD_BYTES) {
      decodeRecord(bytes, i, record);
      if (record.start === INVALID_OFFSET) continue;
      if (record.start === record.end) throw corrupt(source, pieceAt + i, 'an empty segment');
      take(record, pieceAt + i);
    }
  }
}

/** Reads the record at `at` of `bytes` into `record`. */
export function decodeRecord(bytes: Buffer, at: number, record: IndexRecord): void {
  const high = bytes.readUInt32LE(at + 4);
  const mhigh = bytes.readUInt32LE(at + 12);
  record.start = bytes.readUInt32LE(at) + (high & OFFSET_HIGH_MASK) * 2 ** 32;
  record.end = record.start + (high >>> 18);
  record.moffset = bytes.readUInt32LE(at + 8) + (mhigh & MOFFSET_HIGH_MASK) * 2 ** 32;
  record.zeroed = (mhigh & 0x800000) !== 0;
  record.tag = mhigh >>> 24;
}

/** Writes one record at `at` of `bytes`. */
export function encodeRecord(bytes: Buffer, at: number, record: Readonly<IndexRecord>): void {
  const { start, end, moffset, zeroed, tag } = record;
  bytes.writeUInt32LE(start % 2 ** 32, at);
  bytes.writeUInt32LE(((end - start) * 2 ** 18 + Math.floor(start / 2 ** 32)) >>> 0, at + 4);
  bytes.writeUInt32LE(moffset % 2 ** 32, at + 8);
  const flags = (zeroed ? 0x800000 : 0) + tag * 2 ** 24;
  bytes.writeUInt32LE(flags + Math.floor(moffset / 2 ** 32), at + 12);
}

/** Writes one padding record at `at` of `bytes`. */
export function encodePadding(bytes: Buffer, at: number): void {
  bytes.writeBigUInt64LE(BigInt(INVALID_OFFSET), at);
  bytes.writeBigUInt64LE(0n, at + 8);
}

/**
 * The record of which chunks of a blob are in its cache file: encode and parse. Little-endian:
 *
 *   @0 magic "obdcache"  @8 u32 version  @12 u32 chunk bytes  @16 u64 blob bytes  @24 u64 sequence
 *   @32 digest, 32 bytes  @64 one bit per chunk  @64 + bitmap  u32 CRC-32C of all before it
 *   zeroes up to a multiple of 4096
 *
 * docs/formats/block-cache.md has the file around it.
 */
import { crc32c } from '@node-rs/crc32';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { type BlobKey, nameOfDigest } from './blob-key.js';
import type { ChunkSet } from './chunk-set.js';

const MAGIC = Buffer.from('obdcache', 'latin1');
const VERSION = 1;
const SEQUENCE_AT = 24;
const DIGEST_AT = 32;
const BITMAP_AT = 64;
const CRC_BYTES = 4;
/** The unit in which disks and file systems write: a slot shares none with its neighbours. */
export const PAGE_BYTES = 4096;

/** The part of a slot that blobBytesInSlot() reads. */
export const SLOT_HEAD_BYTES = BITMAP_AT;

/** The size that a slot states for its blob; undefined if it is no slot. The slot's CRC is not checked. */
export function blobBytesInSlot(head: Buffer): number | undefined {
  if (!head.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  const bytes = head.readBigUInt64LE(16);
  return bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : undefined;
}

export function slotBytes(chunks: number): number {
  const used = BITMAP_AT + Math.ceil(chunks / 8) + CRC_BYTES;
  return Math.ceil(used / PAGE_BYTES) * PAGE_BYTES;
}

/** @param bits - As ChunkSet has them. */
export function encodeSlot(blob: BlobKey, sequence: number, bits: Uint8Array): Buffer {
  const slot = Buffer.alloc(slotBytes(bits.length * 8));
  slot.set(fixedPart(blob), 0);
  slot.writeBigUInt64LE(BigInt(sequence), SEQUENCE_AT);
  slot.set(bits, BITMAP_AT);
  const end = BITMAP_AT + bits.length;
  slot.writeUInt32LE(crc32c(slot.subarray(0, end)), end);
  return slot;
}

/**
 * Reads a slot into `chunks`, which then has exactly the slot's.
 *
 * @returns Its sequence number; undefined if it is damaged, or another version's or blob's, and then
 *   `chunks` is as it was.
 */
export function parseSlot(slot: Buffer, blob: BlobKey, chunks: ChunkSet): number | undefined {
  const end = BITMAP_AT + chunks.bits.length;
  if (slot.readUInt32LE(end) !== crc32c(slot.subarray(0, end))) return undefined;
  const expected = fixedPart(blob);
  slot.copy(expected, SEQUENCE_AT, SEQUENCE_AT, DIGEST_AT);
  if (!expected.equals(slot.subarray(0, BITMAP_AT))) return undefined;
  const sequence = slot.readBigUInt64LE(SEQUENCE_AT);
  if (sequence > BigInt(Number.MAX_SAFE_INTEGER)) return undefined;
  return chunks.assign(slot.subarray(BITMAP_AT, end)) ? Number(sequence) : undefined;
}

/** Everything before the bitmap, with a sequence of 0. */
function fixedPart({ digest, sizeBytes }: BlobKey): Buffer {
  const part = Buffer.alloc(BITMAP_AT);
  part.set(MAGIC, 0);
  part.writeUInt32LE(VERSION, 8);
  part.writeUInt32LE(CHUNK_BYTES, 12);
  part.writeBigUInt64LE(BigInt(sizeBytes), 16);
  part.write(nameOfDigest(digest), DIGEST_AT, 'hex');
  return part;
}

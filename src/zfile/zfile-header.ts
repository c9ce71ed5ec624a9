/**
 * The 512-byte block that opens a ZFile, and with other flags closes it: parse, check, write.
 *
 *   @0 magic  @24 u32 size = 96  @28 u32 digest  @32 u64 flags  @40 u64 index offset
 *   @48 u64 blocks  @56 u64 decompressed bytes  @64 u32 CRC of the index  @72 u32 block bytes
 *   @76 u8 algorithm  @77 u8 level  @78 u8 dictionary?  @84 u32 dictionary bytes  @88 u8 checked?
 *
 * The digest is the raw CRC-32C of the block with the digest itself taken as zero, and counts only
 * where flag bit 4 is set: the oldest files have no digest, and garbage in unused flags and padding,
 * so only the bits named here are looked at. docs/formats/zfile.md has every byte.
 */
import { corrupt, unsupported } from '../io/format-error.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { type AlgorithmId, Algorithms, BLOCK_BYTES_MAX, type BlockForm } from './block-codec.js';
import { rawCrc32c } from './raw-crc32c.js';
import { hasZFileMagic, ZFILE_MAGIC } from './zfile-magic.js';

export const HEADER_BYTES = 512;
/** Blocks are 4 KiB at least: no tool writes smaller ones, and their index would weigh too much. */
const BLOCK_BYTES_MIN = 4096;
/**
 * 2^25 blocks, 128 GiB in blocks of 4 KiB: their table takes 128 MiB of memory, which is as much as
 * one layer may cost a daemon. The format allows 10^9.
 */
export const BLOCKS_MAX = 1 << 25;

/** The index has the stored length of each block, checksum included, as u32. */
export const INDEX_ENTRY_BYTES = 4;

const STRUCT_BYTES = 96;
const DIGEST_AT = 28;
const FLAGS_AT = 32;

const FLAG_HEADER = 1;
const FLAG_DATA = 2;
const FLAG_SEALED = 4;
const FLAG_FINAL = 8;
const FLAG_DIGEST = 16;
const FLAGS_PROVISIONAL = FLAG_HEADER | FLAG_DATA | FLAG_DIGEST;
const FLAGS_FINAL = FLAGS_PROVISIONAL | FLAG_FINAL;
const FLAGS_TRAILER = FLAG_DATA | FLAG_SEALED | FLAG_DIGEST;

/**
 * Where the parts of a ZFile lie. Offsets and sizes are in bytes and are safe integers; a parsed one
 * has an index that fits in its file.
 */
export interface ZFileLayout extends BlockForm {
  readonly indexOffset: number;
  readonly blocks: number;
  readonly decompressedBytes: number;
  /** Undefined in files that carry none. */
  readonly indexCrc: number | undefined;
}

/** The header of a ZFile; `layout` only if the header was rewritten when the file was finished. */
export interface ParsedHeader {
  readonly layout: ZFileLayout | undefined;
}

/** The file a block is part of, as far as checks and messages need it. */
type Container = Pick<RandomAccessFile, 'label' | 'sizeBytes'>;

/**
 * Parses the block at the start of `file`.
 *
 * @throws {ObdError} `Corrupt`, `Unsupported`.
 */
export function parseHeader(block: Buffer, file: Container): ParsedHeader {
  const flags = checkBlock(block, file, 0);
  if ((flags & FLAG_HEADER) === 0) throw corrupt(file, FLAGS_AT, 'a header has flag bit 0 set');
  return { layout: (flags & FLAG_FINAL) === 0 ? undefined : parseLayout(block, flags, file, 0) };
}

/**
 * Parses the block at the end of `file`, which starts at `at`.
 * @throws {ObdError} `Corrupt`, `Unsupported`.
 */
export function parseTrailer(block: Buffer, file: Container, at: number): ZFileLayout {
  const flags = checkBlock(block, file, at);
  if ((flags & (FLAG_HEADER | FLAG_DATA | FLAG_SEALED)) !== (FLAG_DATA | FLAG_SEALED)) {
    throw corrupt(file, at + FLAGS_AT, 'a trailer has flag bits 1 and 2 set and bit 0 clear');
  }
  return parseLayout(block, flags, file, at);
}

/** Checks magic and digest; returns the low flags. */
function checkBlock(block: Buffer, file: Container, at: number): number {
  if (!hasZFileMagic(block)) throw corrupt(file, at, 'no ZFile magic');
  const flags = block.readUInt32LE(FLAGS_AT);
  if ((flags & FLAG_DIGEST) !== 0) {
    const stored = block.readUInt32LE(DIGEST_AT);
    const found = digestOf(block);
    if (stored !== found) {
      throw corrupt(file, at + DIGEST_AT, `digest is ${hex(stored)}, the bytes give ${hex(found)}`);
    }
  }
  return flags;
}

function digestOf(block: Buffer): number {
  const crc = rawCrc32c(block.subarray(0, DIGEST_AT), 0);
  const zeroed = rawCrc32c(new Uint8Array(4), crc);
  return rawCrc32c(block.subarray(DIGEST_AT + 4, HEADER_BYTES), zeroed);
}

function parseLayout(block: Buffer, flags: number, file: Container, at: number): ZFileLayout {
  const u64 = (field: number, name: string): number => {
    const value = block.readBigUInt64LE(field);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw corrupt(file, at + field, `${name} ${value} is past 2^53`);
  };
  const indexOffset = u64(40, 'index offset');
  const blocks = u64(48, 'block count');
  const decompressedBytes = u64(56, 'size');
  const blockBytes = block.readUInt32LE(72);
  const algorithm = block.readUInt8(76);
  if (block.readUInt8(78) !== 0 || block.readUInt32LE(84) !== 0) {
    throw unsupported(file, at + 78, 'compressed with a dictionary');
  }
  if (algorithm !== Algorithms.lz4 && algorithm !== Algorithms.zstd) {
    throw unsupported(file, at + 76, `algorithm ${algorithm}; lz4 is 1 and zstd is 2`);
  }
  if (!isBlockSize(blockBytes)) {
    throw unsupported(file, at + 72, `blocks of ${blockBytes} bytes, not 4, 8, 16, 32 or 64 KiB`);
  }
  if (blocks !== Math.ceil(decompressedBytes / blockBytes)) {
    const size = `${decompressedBytes} bytes in blocks of ${blockBytes}`;
    throw corrupt(file, at + 48, `${blocks} blocks cannot hold ${size}`);
  }
  if (blocks > BLOCKS_MAX) {
    throw unsupported(file, at + 48, `${blocks} blocks, the limit is ${BLOCKS_MAX}`);
  }
  const indexEnd = indexOffset + blocks * INDEX_ENTRY_BYTES;
  if (indexOffset < HEADER_BYTES || indexEnd > file.sizeBytes - HEADER_BYTES) {
    const rule = 'lie between header and trailer';
    throw corrupt(file, at + 40, `the index, [${indexOffset}, ${indexEnd}), does not ${rule}`);
  }
  const checked = block.readUInt8(88) !== 0;
  const indexCrc = (flags & FLAG_DIGEST) === 0 ? undefined : block.readUInt32LE(64);
  return { indexOffset, blocks, decompressedBytes, indexCrc, blockBytes, algorithm, checked };
}

/** Whether the format has blocks of this size: 4, 8, 16, 32 or 64 KiB. */
export function isBlockSize(bytes: number): boolean {
  return bytes >= BLOCK_BYTES_MIN && bytes <= BLOCK_BYTES_MAX && (bytes & (bytes - 1)) === 0;
}

/** The header of a file that is still being written: only the block form is in it. */
export function encodeProvisionalHeader(blockBytes: number, algorithm: AlgorithmId): Buffer {
  const layout = { indexOffset: 0, blocks: 0, decompressedBytes: 0, indexCrc: 0 };
  return encode(FLAGS_PROVISIONAL, { ...layout, blockBytes, algorithm, checked: true });
}

/** The header that replaces the provisional one, so that a reader needs no trailer. */
export function encodeFinalHeader(layout: ZFileLayout): Buffer {
  return encode(FLAGS_FINAL, layout);
}

export function encodeTrailer(layout: ZFileLayout): Buffer {
  return encode(FLAGS_TRAILER, layout);
}

function encode(flags: number, layout: ZFileLayout): Buffer {
  const block = Buffer.alloc(HEADER_BYTES);
  block.set(ZFILE_MAGIC, 0);
  block.writeUInt32LE(STRUCT_BYTES, 24);
  block.writeUInt32LE(flags, FLAGS_AT);
  block.writeBigUInt64LE(BigInt(layout.indexOffset), 40);
  block.writeBigUInt64LE(BigInt(layout.blocks), 48);
  block.writeBigUInt64LE(BigInt(layout.decompressedBytes), 56);
  block.writeUInt32LE(layout.indexCrc ?? 0, 64);
  block.writeUInt32LE(layout.blockBytes, 72);
  block.writeUInt8(layout.algorithm, 76);
  block.writeUInt8(layout.checked ? 1 : 0, 88);
  block.writeUInt32LE(digestOf(block), DIGEST_AT);
  return block;
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

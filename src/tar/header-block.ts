/**
 * The 512-byte header block of a tar member: v7, ustar (POSIX.1-1988) and old GNU layouts.
 *
 *     0 name 100 | 100 mode 8 | 108 uid 8 | 116 gid 8 | 124 size 12 | 136 mtime 12 | 148 checksum 8
 *     156 typeflag 1 | 157 linkname 100 | 257 magic 6 | 263 version 2 | 265 uname 32 | 297 gname 32
 *     329 devmajor 8 | 337 devminor 8
 *     ustar: 345 prefix 155      GNU: 345 atime 12 | 357 ctime 12 | 386 sparse 4 x 24 | 482 extended 1 |
 *                                     483 real size 12
 *
 * A number is octal text, padded with spaces or NULs, or, with the top bit of its first byte set, a
 * big-endian two's complement integer over the rest of the field ("base-256", GNU).
 * The checksum is the sum of all bytes with the checksum field taken as spaces; some historic writers
 * summed signed bytes, so either sum is accepted.
 */
import { TAR_BLOCK_BYTES } from '../io/block-sizes.js';
import type { TarTime } from './tar-entry.js';

/** A defect of a header; the reader turns it into an error that names member and offset. */
export class HeaderProblem extends Error {
  override readonly name = 'HeaderProblem';
}

export interface HeaderBlock {
  readonly name: Uint8Array;
  readonly linkName: Uint8Array;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  readonly mtime: TarTime;
  readonly atime: TarTime | undefined;
  readonly ctime: TarTime | undefined;
  readonly typeflag: number;
  readonly major: number;
  readonly minor: number;
}

export function isZeroBlock(block: Uint8Array): boolean {
  return block.every((byte) => byte === 0);
}

/** @throws {HeaderProblem} for a wrong checksum or an invalid number. `block` is not retained. */
export function parseHeaderBlock(block: Uint8Array): HeaderBlock {
  checkSum(block);
  const magic = Buffer.from(block.subarray(257, 265)).toString('latin1');
  const posix = magic.startsWith('ustar\0');
  const gnu = magic === 'ustar  \0';
  const prefix = posix ? text(block, 345, 155) : new Uint8Array(0);
  const name = text(block, 0, 100);
  const mtime = parseNumber(block, 136, 12, 'mtime');
  return {
    name: prefix.length > 0 ? Buffer.concat([prefix, Buffer.from('/'), name]) : name,
    linkName: text(block, 157, 100),
    mode: natural(block, 100, 8, 'mode'),
    uid: natural(block, 108, 8, 'uid'),
    gid: natural(block, 116, 8, 'gid'),
    sizeBytes: natural(block, 124, 12, 'size'),
    mtime: { seconds: mtime, nanoseconds: 0 },
    atime: gnu ? gnuTime(block, 345, 'atime') : undefined,
    ctime: gnu ? gnuTime(block, 357, 'ctime') : undefined,
    typeflag: block[156] as number,
    major: posix || gnu ? natural(block, 329, 8, 'devmajor') : 0,
    minor: posix || gnu ? natural(block, 337, 8, 'devminor') : 0,
  };
}

/** A number that cannot be negative. @throws {HeaderProblem} */
export function natural(block: Uint8Array, at: number, length: number, field: string): number {
  const value = parseNumber(block, at, length, field);
  if (value < 0) throw new HeaderProblem(`the ${field} field is negative (${value})`);
  return value;
}

function checkSum(block: Uint8Array): void {
  let unsigned = 0;
  let signed = 0;
  for (let i = 0; i < TAR_BLOCK_BYTES; i++) {
    const byte = i >= 148 && i < 156 ? 0x20 : (block[i] as number);
    unsigned += byte;
    signed += byte < 128 ? byte : byte - 256;
  }
  const stored = parseNumber(block, 148, 8, 'checksum');
  if (stored !== unsigned && stored !== signed) {
    throw new HeaderProblem(
      `the header's checksum is ${stored} and its bytes add up to ${unsigned}`,
    );
  }
}

function text(block: Uint8Array, at: number, length: number): Uint8Array {
  const field = block.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.slice(0, end < 0 ? length : end);
}

function gnuTime(block: Uint8Array, at: number, field: string): TarTime | undefined {
  if (block[at] === 0) return undefined;
  return { seconds: parseNumber(block, at, 12, field), nanoseconds: 0 };
}

function parseNumber(block: Uint8Array, at: number, length: number, field: string): number {
  const bytes = block.subarray(at, at + length);
  const value = ((bytes[0] as number) & 0x80) !== 0 ? base256(bytes) : octal(bytes);
  if (value === undefined || !Number.isSafeInteger(value)) {
    const found = Buffer.from(bytes).toString('hex');
    throw new HeaderProblem(
      `the ${field} field is no number this reader can hold (bytes ${found})`,
    );
  }
  return value;
}

function octal(bytes: Uint8Array): number | undefined {
  let start = 0;
  let end = bytes.length;
  while (start < end && isPadding(bytes[start] as number)) start++;
  while (start < end && isPadding(bytes[end - 1] as number)) end--;
  let value = 0;
  for (let i = start; i < end; i++) {
    const byte = bytes[i] as number;
    if (byte === 0) break;
    const digit = byte - 0x30;
    if (digit < 0 || digit > 7) return undefined;
    value = value * 8 + digit;
  }
  return value;
}

function isPadding(byte: number): boolean {
  return byte === 0x20 || byte === 0;
}

function base256(bytes: Uint8Array): number {
  const negative = ((bytes[0] as number) & 0x40) !== 0;
  let value = BigInt(negative ? (bytes[0] as number) - 256 : (bytes[0] as number) & 0x7f);
  for (let i = 1; i < bytes.length; i++) value = value * 256n + BigInt(bytes[i] as number);
  return Number(value);
}

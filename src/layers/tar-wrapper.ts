/**
 * The one-member tar around a layer, which makes a registry and its clients take it for a tar layer.
 *
 * Written, and read:                              Also read, as other writers make it:
 *
 *      0  pax header "overlaybd.pax"                   0  ustar header "overlaybd.commit", size in it
 *    512  pax record "NN size=N\n"                   512  the member
 *   1024  ustar header "overlaybd.commit", size 0
 *   1536  the member, N bytes, zeroes up to 512
 *    ...  1024 zeroes
 *
 * While the member grows, a provisional header that no tar reader accepts stands in their place; the
 * real ones go over it at the end, when the member's size is known. A file cut short is no tar.
 */
import { TAR_BLOCK_BYTES } from '../io/block-sizes.js';
import { FileWindow } from '../io/file-window.js';
import { corrupt, unsupported } from '../io/format-error.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { RewritableSink } from '../zfile/zfile-writer.js';

const CHECKSUM_AT = 148;
const CHECKSUM_BYTES = 8;
/** Where the member starts behind a pax header of one record block. */
const MEMBER_AT = 3 * TAR_BLOCK_BYTES;

/** The content of a file that may be a tar. */
export interface Unwrapped {
  /** The member of the tar, or the file itself if it is no tar. It owns the file. */
  readonly content: RandomAccessFile;
  /** Where it starts in the file; 0 if that is no tar. */
  readonly start: number;
}

/**
 * Finds the member of the tar that `source` is, or `source` itself if it is no tar. After an error the caller still owns
 * `source`.
 *
 * @param head - The first HEAD_BYTES of `source`, or all of a smaller one.
 * @throws {ObdError} `Corrupt`, `Unsupported` for a pax header of more than one block.
 */
export function unwrapTar(source: RandomAccessFile, head: Buffer): Unwrapped {
  if (head.length < TAR_BLOCK_BYTES || !isTarHeader(head)) return { content: source, start: 0 };
  if (head.toString('latin1', 156, 157) !== 'x') {
    return windowAt(source, TAR_BLOCK_BYTES, sizeField(head, source, 0), 124);
  }
  if (head.length < MEMBER_AT) throw corrupt(source, 0, 'a tar that ends in its headers');
  const recordBytes = sizeField(head, source, 0);
  if (recordBytes > TAR_BLOCK_BYTES) {
    throw unsupported(source, 124, `a pax header of ${recordBytes} bytes, more than one block`);
  }
  const member = head.subarray(2 * TAR_BLOCK_BYTES);
  if (!isTarHeader(member)) {
    throw corrupt(source, 2 * TAR_BLOCK_BYTES, 'no ustar header of a member');
  }
  const records = head.toString('latin1', TAR_BLOCK_BYTES, TAR_BLOCK_BYTES + recordBytes);
  const paxSize = paxSizeOf(records, source);
  const size = paxSize > 0 ? paxSize : sizeField(member, source, 2 * TAR_BLOCK_BYTES);
  return windowAt(source, MEMBER_AT, size, TAR_BLOCK_BYTES);
}

function windowAt(source: RandomAccessFile, start: number, size: number, at: number): Unwrapped {
  if (size <= source.sizeBytes - start) {
    return { content: new FileWindow(source, start, size), start };
  }
  const found = source.sizeBytes - start;
  throw corrupt(source, at, `the tar's member has ${size} bytes, and only ${found} are there`);
}

/** Where a tar ends whose member ends at byte `end`: behind the padding and two blocks of zeroes. */
export function tarEnd(end: number): number {
  return end + (-end & (TAR_BLOCK_BYTES - 1)) + 2 * TAR_BLOCK_BYTES;
}

/** POSIX ustar with a right checksum. GNU headers are not overlaybd's, and it refuses them too. */
function isTarHeader(block: Buffer): boolean {
  if (block.toString('latin1', 257, 262) !== 'ustar') return false;
  if (block.toString('latin1', 263, 265) !== '00') return false;
  return octal(block, CHECKSUM_AT, CHECKSUM_BYTES) === checksumOf(block);
}

/** Sum of the header's bytes with the checksum field taken as spaces. */
function checksumOf(block: Buffer): number {
  let sum = CHECKSUM_BYTES * 0x20;
  for (let i = 0; i < TAR_BLOCK_BYTES; i++) {
    if (i < CHECKSUM_AT || i >= CHECKSUM_AT + CHECKSUM_BYTES) sum += block[i]!;
  }
  return sum;
}

function octal(block: Buffer, at: number, bytes: number): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(block.toString('latin1', at, at + bytes))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

function sizeField(header: Buffer, source: RandomAccessFile, at: number): number {
  const size = octal(header, 124, 12);
  if (size === undefined) throw corrupt(source, at + 124, 'the tar header has no octal size');
  return size;
}

/** The pax records' `size`, or 0. Each record is "LENGTH KEY=VALUE\n", LENGTH counting itself. */
function paxSizeOf(records: string, source: RandomAccessFile): number {
  let size = 0;
  for (let at = 0; at < records.length && records[at] !== '\0'; ) {
    const length = Number(/^([0-9]{1,4}) /.exec(records.slice(at))?.[1] ?? 0);
    const record = records.slice(at, at + length);
    if (length === 0 || record.length !== length || !record.endsWith('\n')) {
      throw corrupt(source, TAR_BLOCK_BYTES + at, 'a malformed pax record');
    }
    const value = /^[0-9]+ size=([0-9]{1,16})\n$/.exec(record)?.[1];
    if (value !== undefined) size = Number(value);
    at += length;
  }
  if (!Number.isSafeInteger(size))
    throw corrupt(source, TAR_BLOCK_BYTES, 'a member larger than 2^53');
  return size;
}

/** Puts a tar around what is written to it: a sink for a ZFileWriter. Bytes as overlaybd's own. */
export class TarWrapperWriter implements RewritableSink {
  /** Bytes in front of what is written. */
  readonly headerBytes = MEMBER_AT;
  readonly #sink: RewritableSink;
  #memberBytes = 0;

  /** Writes a provisional header, and room for the others. */
  constructor(sink: RewritableSink) {
    this.#sink = sink;
    sink.write(Buffer.concat([memberBlock(false)], MEMBER_AT));
  }

  write(bytes: Uint8Array): void {
    this.#sink.write(bytes);
    this.#memberBytes += bytes.length;
  }

  writeAt(bytes: Uint8Array, offset: number): void {
    this.#sink.writeAt(bytes, MEMBER_AT + offset);
  }

  /** Pads, ends the tar, and makes its headers real. */
  finish(): void {
    const size = this.#memberBytes;
    const padding = -size & (TAR_BLOCK_BYTES - 1);
    this.#sink.write(Buffer.alloc(padding + 2 * TAR_BLOCK_BYTES));
    this.#sink.writeAt(Buffer.concat([paxBlock(size), recordBlock(size), memberBlock(true)]), 0);
  }
}

function paxBlock(size: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  block.write('overlaybd.pax', 0, 'latin1');
  block.write(`${sizeRecord(size).length.toString(8).padStart(11)} `, 124, 'latin1');
  return seal(block, 'x', true);
}

function recordBlock(size: number): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  block.write(sizeRecord(size), 0, 'latin1');
  return block;
}

function memberBlock(finished: boolean): Buffer {
  const block = Buffer.alloc(TAR_BLOCK_BYTES);
  block.write(finished ? 'overlaybd.commit' : 'overlaybd.new', 0, 'latin1');
  block.write('100644 \0', 100, 'latin1');
  block.write('     0 \0     0 \0', 108, 'latin1');
  block.write(`${'0'.padStart(11)} ${'0'.padStart(11)} `, 124, 'latin1');
  block.write('root', 265, 'latin1');
  block.write('root', 297, 'latin1');
  return seal(block, '0', finished);
}

/** Type, magic and checksum; while unfinished a magic that no tar reader knows. */
function seal(block: Buffer, type: string, finished: boolean): Buffer {
  block.write(type, 156, 'latin1');
  block.write(finished ? 'ustar\x0000' : 'xxtar\0xx', 257, 'latin1');
  block.write(`${checksumOf(block).toString(8).padStart(6)} \0`, CHECKSUM_AT, 'latin1');
  return block;
}

/** "LENGTH size=N\n", where LENGTH counts itself. */
function sizeRecord(size: number): string {
  const rest = ` size=${size}\n`;
  let length = rest.length + 1;
  while (`${length}${rest}`.length !== length) length++;
  return `${length}${rest}`;
}

/**
 * A BlockDevice over a sparse file, so that other programs can look at it: e2fsck, mount.
 *
 * Discarded bytes are filled with 0xdd at once, to detect reads of them before they are written again. `writtenBytes`
 * counts for tests of "writes little".
 */
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import type { BlockDevice } from '../../src/io/block-device.js';

const DISCARDED = Buffer.alloc(1 << 20, 0xdd);

export class SparseDevice implements BlockDevice {
  readonly path: string;
  readonly sizeBytes: number;
  writtenBytes = 0;
  readonly #fd: number;

  constructor(path: string, sizeBytes: number) {
    this.path = path;
    this.sizeBytes = sizeBytes;
    this.#fd = openSync(path, 'w+');
    ftruncateSync(this.#fd, sizeBytes);
  }

  read(target: Uint8Array, offset: number): void {
    this.#check(offset, target.length);
    const got = readSync(this.#fd, target, 0, target.length, offset);
    if (got !== target.length) throw new RangeError(`short read at ${offset}`);
  }

  write(source: Uint8Array, offset: number): void {
    this.#check(offset, source.length);
    if (offset % 512 !== 0 || source.length % 512 !== 0) throw new RangeError(`write at ${offset}`);
    writeSync(this.#fd, source, 0, source.length, offset);
    this.writtenBytes += source.length;
  }

  discard(offset: number, length: number): void {
    this.#check(offset, length);
    for (let at = 0; at < length; at += DISCARDED.length) {
      writeSync(this.#fd, DISCARDED, 0, Math.min(DISCARDED.length, length - at), offset + at);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #check(offset: number, length: number): void {
    if (offset >= 0 && length >= 0 && offset + length <= this.sizeBytes) return;
    throw new RangeError(`[${offset}, ${offset + length}) is outside the disk`);
  }
}

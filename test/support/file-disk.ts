/** A raw file as a writable disk, for tests of exports: the writes that fio makes through a device are in the file. */
import { closeSync, constants, fdatasync, fstatSync, openSync, readSync, write } from 'node:fs';
import { promisify } from 'node:util';
import type { WritableDisk } from '../../src/blockdev/virtual-disk.js';

const writeTo = promisify(write);
const syncTo = promisify(fdatasync);
const ZEROES = Buffer.alloc(1 << 20);

export class FileDisk implements WritableDisk {
  readonly label: string;
  readonly sizeBytes: number;
  /** For tests of a transport's requests. */
  readonly counts = { writes: 0, zeroes: 0, flushes: 0 };
  readonly #fd: number;

  constructor(path: string) {
    this.label = path;
    this.#fd = openSync(path, constants.O_RDWR);
    this.sizeBytes = fstatSync(this.#fd).size;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    this.#checkRange(offset, target.length);
    for (let at = 0; at < target.length; ) {
      at += readSync(this.#fd, target, at, target.length - at, offset + at);
    }
    return true;
  }

  async load(): Promise<void> {}

  invalidate(): boolean {
    return false;
  }

  extentAt(_offset: number, length: number): number {
    return length;
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    this.#checkRange(offset, source.length);
    this.counts.writes++;
    await this.#write(source, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    this.counts.zeroes++;
    for (let at = 0; at < length; at += ZEROES.length) {
      await this.#write(ZEROES.subarray(0, Math.min(ZEROES.length, length - at)), offset + at);
    }
  }

  async flush(): Promise<void> {
    this.counts.flushes++;
    await syncTo(this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }

  async #write(bytes: Uint8Array, offset: number): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      at += (await writeTo(this.#fd, bytes, at, bytes.length - at, offset + at)).bytesWritten;
    }
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside ${this.label}`);
    }
  }
}

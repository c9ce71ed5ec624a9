/**
 * RandomAccessFiles for tests: bytes in memory, all here or arriving chunk by chunk as a remote file's
 * do, with every load() and invalidate() recorded.
 */
import { createHash } from 'node:crypto';
import type { RandomAccessFile } from '../../src/io/random-access-file.js';

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** All bytes local. */
export class MemoryFile implements RandomAccessFile {
  readonly label: string;
  readonly bytes: Uint8Array;
  closed = false;

  constructor(bytes: Uint8Array, label = 'memory') {
    this.bytes = bytes;
    this.label = label;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    if (!(offset >= 0 && offset + target.length <= this.bytes.length)) {
      throw new RangeError(`[${offset}, ${offset + target.length}) is outside ${this.label}`);
    }
    target.set(this.bytes.subarray(offset, offset + target.length));
    return true;
  }

  async load(_offset: number, _length: number): Promise<void> {}

  invalidate(_offset: number, _length: number): boolean {
    return false;
  }

  close(): void {
    this.closed = true;
  }
}

/** Nothing is local until it is loaded, byte by byte exact; forgetting makes it absent again. */
export class ArrivingFile extends MemoryFile {
  readonly loads: Range[] = [];
  readonly forgets: Range[] = [];
  readonly #here: Uint8Array;
  /** The undamaged bytes, which replace a range once it is forgotten. */
  readonly #origin: Uint8Array;

  /** @param firstCopy - What loads deliver until the range is forgotten: damage in transit. */
  constructor(bytes: Uint8Array, firstCopy: Uint8Array = bytes) {
    super(Uint8Array.from(firstCopy), 'arriving');
    this.#origin = bytes;
    this.#here = new Uint8Array(bytes.length);
  }

  override tryRead(target: Uint8Array, offset: number): boolean {
    super.tryRead(target, offset);
    return this.#here.subarray(offset, offset + target.length).every((here) => here === 1);
  }

  override async load(offset: number, length: number): Promise<void> {
    this.loads.push({ offset, length });
    this.#here.fill(1, offset, offset + length);
  }

  override invalidate(offset: number, length: number): boolean {
    this.forgets.push({ offset, length });
    this.#here.fill(0, offset, offset + length);
    this.bytes.set(this.#origin.subarray(offset, offset + length), offset);
    return true;
  }
}

/** Collects what a writer writes, in order and over what is there. */
export class MemorySink {
  #bytes = Buffer.alloc(1024);
  #length = 0;

  write(bytes: Uint8Array): void {
    while (this.#length + bytes.length > this.#bytes.length) {
      this.#bytes = Buffer.concat([this.#bytes], this.#bytes.length * 2);
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  writeAt(bytes: Uint8Array, offset: number): void {
    if (offset + bytes.length > this.#length) throw new RangeError('writeAt() past the end');
    this.#bytes.set(bytes, offset);
  }

  get sizeBytes(): number {
    return this.#length;
  }

  hashOf(offset: number, bytes: number): Buffer {
    return createHash('sha256')
      .update(this.#bytes.subarray(offset, offset + bytes))
      .digest();
  }

  get written(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

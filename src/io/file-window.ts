/** A window on a part of a file. Adds an offset to every call, and nothing else. */
import type { RandomAccessFile, StoredRange } from './random-access-file.js';

export class FileWindow implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #source: RandomAccessFile;
  readonly #start: number;

  /** [start, start + sizeBytes) of `source`, which close() closes. */
  constructor(source: RandomAccessFile, start: number, sizeBytes: number) {
    if (!(start >= 0 && sizeBytes >= 0 && start + sizeBytes <= source.sizeBytes)) {
      throw new RangeError(`window [${start}, ${start + sizeBytes}) is outside "${source.label}"`);
    }
    this.label = source.label;
    this.sizeBytes = sizeBytes;
    this.#source = source;
    this.#start = start;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    this.#checkRange(offset, target.length);
    return this.#source.tryRead(target, this.#start + offset);
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    this.#checkRange(offset, length);
    await this.#source.load(this.#start + offset, length, deadlineMs);
  }

  invalidate(offset: number, length: number): boolean {
    this.#checkRange(offset, length);
    return this.#source.invalidate(this.#start + offset, length);
  }

  storedRanges(offset: number, length: number): readonly StoredRange[] {
    this.#checkRange(offset, length);
    return this.#source.storedRanges?.(this.#start + offset, length) ?? [];
  }

  close(): void {
    this.#source.close();
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside "${this.label}"`);
    }
  }
}

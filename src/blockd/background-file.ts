/**
 * A layer's file whose misses are fetched with the urgency of the background: for work that no container waits for, such as
 * compressing the pages of a start. Reads of containers come first, and raise a fetch that they wait for.
 */
import { BlobReader } from '../cache/blob-reader.js';
import type { RandomAccessFile, StoredRange } from '../io/random-access-file.js';

export class BackgroundFile implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #inner: RandomAccessFile;

  /** @param inner - Its owner closes it. */
  constructor(inner: RandomAccessFile) {
    this.#inner = inner;
    this.label = inner.label;
    this.sizeBytes = inner.sizeBytes;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    return this.#inner.tryRead(target, offset);
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    for (const { blob, offset: at, length: bytes } of this.storedRanges(offset, length)) {
      if (blob instanceof BlobReader) await blob.fetchInBackground(at, bytes);
    }
    await this.#inner.load(offset, length, deadlineMs);
  }

  invalidate(offset: number, length: number): boolean {
    return this.#inner.invalidate(offset, length);
  }

  storedRanges(offset: number, length: number): readonly StoredRange[] {
    return this.#inner.storedRanges?.(offset, length) ?? [];
  }

  close(): void {}
}

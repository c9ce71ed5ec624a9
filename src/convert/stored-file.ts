/** A layer's file in the work directory, as the blob that a registry will have: says which of its bytes a read needs. */
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile, StoredRange } from '../io/random-access-file.js';

export class StoredFile implements RandomAccessFile {
  readonly #file: LocalFile;

  /** @throws {ObdError} as LocalFile.open(). */
  constructor(path: string) {
    this.#file = LocalFile.openWaiting(path);
  }

  get label(): string {
    return this.#file.label;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    return this.#file.tryRead(target, offset);
  }

  async load(offset: number, length: number): Promise<void> {
    await this.#file.load(offset, length);
  }

  invalidate(): boolean {
    return false;
  }

  storedRanges(offset: number, length: number): readonly StoredRange[] {
    return [{ blob: this, offset, length }];
  }

  close(): void {
    this.#file.close();
  }
}

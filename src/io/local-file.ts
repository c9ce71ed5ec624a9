/**
 * A plain file of this machine as a RandomAccessFile. As open() gives it, its bytes are local while they are in
 * memory, and load() brings them there (resident-file.ts); as openWaiting() does, they always are.
 *
 * Cost of a read from the page cache: one preadv2, no allocation.
 */
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import type { RandomAccessFile } from './random-access-file.js';
import { ResidentFile } from './resident-file.js';

export class LocalFile implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #fd: number;
  readonly #bytes: ResidentFile;
  #closed = false;

  private constructor(label: string, sizeBytes: number, fd: number, mayWait: boolean) {
    this.label = label;
    this.sizeBytes = sizeBytes;
    this.#bytes = new ResidentFile(fd, label, mayWait);
    this.#fd = fd;
  }

  /** @throws {ObdError} `NotFound`, `InvalidArgument` for something that is not a file, `Io`. */
  static open(path: string): LocalFile {
    return LocalFile.#open(path, false);
  }

  /**
   * For a program that has nothing else to do: tryRead() always answers, and waits for the disk where it must.
   * @throws {ObdError} as open() does.
   */
  static openWaiting(path: string): LocalFile {
    return LocalFile.#open(path, true);
  }

  static #open(path: string, mayWait: boolean): LocalFile {
    let fd: number | undefined;
    try {
      // Opening a pipe would wait for who writes to it; a file does not care.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const stat = fstatSync(fd);
      if (!stat.isFile()) {
        throw new ObdError(
          ErrorCodes.InvalidArgument,
          `Cannot open "${path}": it is not a regular file`,
          { path },
        );
      }
      return new LocalFile(path, stat.size, fd, mayWait);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      if (error instanceof ObdError) throw error;
      const code = systemCode(error) === 'ENOENT' ? ErrorCodes.NotFound : ErrorCodes.Io;
      throw new ObdError(code, `Cannot open "${path}": ${messageOf(error)}`, { path }, error);
    }
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    this.#check(offset, target.length);
    return this.#bytes.tryRead(target, offset);
  }

  async load(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#bytes.load(offset, length);
  }

  invalidate(): boolean {
    return false;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#bytes.close();
    closeSync(this.#fd);
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new TypeError(`"${this.label}" is closed`);
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside "${this.label}"`);
    }
  }
}

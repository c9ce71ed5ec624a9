/**
 * A plain file of this machine as a RandomAccessFile: every byte is local, so load() has nothing to do.
 *
 * Cost of a read: one pread through fs.readSync, no allocation.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import type { RandomAccessFile } from './random-access-file.js';

export class LocalFile implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  #fd: number | undefined;

  private constructor(label: string, sizeBytes: number, fd: number) {
    this.label = label;
    this.sizeBytes = sizeBytes;
    this.#fd = fd;
  }

  /** @throws {ObdError} `NotFound`, `InvalidArgument` for something that is not a file, `Io`. */
  static open(path: string): LocalFile {
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
      return new LocalFile(path, stat.size, fd);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      if (error instanceof ObdError) throw error;
      const code = systemCode(error) === 'ENOENT' ? ErrorCodes.NotFound : ErrorCodes.Io;
      throw new ObdError(code, `Cannot open "${path}": ${messageOf(error)}`, { path }, error);
    }
  }

  readLocal(target: Uint8Array, offset: number): boolean {
    if (this.#fd === undefined) throw new TypeError(`"${this.label}" is closed`);
    if (!(offset >= 0 && offset + target.length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + target.length}) is outside "${this.label}"`);
    }
    let done = 0;
    while (done < target.length) {
      const got = this.#read(target, done, offset + done);
      if (got === 0) {
        throw new ObdError(
          ErrorCodes.Corrupt,
          `Cannot read "${this.label}": it ends at ${offset + done}, and was ${this.sizeBytes} bytes when opened`,
          { path: this.label, offset: offset + done },
        );
      }
      done += got;
    }
    return true;
  }

  #read(target: Uint8Array, at: number, offset: number): number {
    try {
      return readSync(this.#fd as number, target, at, target.length - at, offset);
    } catch (error) {
      throw new ObdError(
        ErrorCodes.Io,
        `Cannot read "${this.label}" at ${offset}: ${messageOf(error)}`,
        { path: this.label, offset },
        error,
      );
    }
  }

  async load(): Promise<void> {}

  forget(): boolean {
    return false;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

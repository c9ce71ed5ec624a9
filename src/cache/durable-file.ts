/** A file that says when what was written to it is on the disk: the seam at which tests pull the plug. */
import { readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { systemCode } from '../errors.js';

/** Offsets and lengths in bytes. Failures are Node's system errors. */
export interface DurableFile {
  readonly sizeBytes: number;
  readonly fd: number;
  /** @returns How many bytes were read; less than wanted only at the end of the file. */
  readSync(target: Uint8Array, offset: number): number;
  /** The bytes may be lost, or torn, by a loss of power until sync() resolves. */
  write(source: Uint8Array, offset: number): Promise<void>;
  /** Resolves once every write that resolved before this call is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export class LocalDurableFile implements DurableFile {
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle, sizeBytes: number) {
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
  }

  static async open(path: string): Promise<LocalDurableFile> {
    const handle = await open(path, 'r+');
    try {
      return new LocalDurableFile(handle, (await handle.stat()).size);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** A new file of `sizeBytes` zeroes, all of it a hole. There must be none of that name. */
  static async create(path: string, sizeBytes: number): Promise<LocalDurableFile> {
    const handle = await open(path, 'wx+', 0o600);
    try {
      await handle.truncate(sizeBytes);
      return new LocalDurableFile(handle, sizeBytes);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  get fd(): number {
    return this.#handle.fd;
  }

  readSync(target: Uint8Array, offset: number): number {
    // One call nearly always: a regular file is read short only at its end or after a signal.
    let done = readSync(this.#handle.fd, target, 0, target.length, offset);
    while (done < target.length) {
      const got = readSync(this.#handle.fd, target, done, target.length - done, offset + done);
      if (got === 0) break;
      done += got;
    }
    return done;
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < source.length; ) {
      const { bytesWritten } = await this.#handle.write(
        source,
        done,
        source.length - done,
        offset + done,
      );
      done += bytesWritten;
    }
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Whether a write failed for want of room: disk, quota, or the largest file that the file system has. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(error) ?? '');
}

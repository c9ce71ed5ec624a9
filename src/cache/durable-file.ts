/** A file that reports when its writes are on the disk: the seam at which tests simulate a loss of power. */
import { constants, readSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { allocateRange, punchHole } from '../io/posix.js';

/** From the kernel's asm-generic/fcntl.h; Node does not have it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY | constants.O_RDWR;

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
  /** Makes a range a hole. Until sync() resolves, a loss of power may undo all or part of it. */
  punch(offset: number, length: number): Promise<void>;
  /** Takes room for a range, so that writing it cannot fail for want of room. */
  allocate(offset: number, length: number): Promise<void>;
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

  /** A new file of `sizeBytes` zeroes, all of it a hole. Fails if the name exists. */
  static async create(path: string, sizeBytes: number): Promise<LocalDurableFile> {
    return await LocalDurableFile.#sized(await open(path, 'wx+', 0o600), sizeBytes);
  }

  /** Like create(), but without a name: close() deletes it. It takes no room in `directory`, which may be full. */
  static async createUnnamed(directory: string, sizeBytes: number): Promise<LocalDurableFile> {
    return await LocalDurableFile.#sized(await open(directory, O_TMPFILE, 0o600), sizeBytes);
  }

  static async #sized(handle: FileHandle, sizeBytes: number): Promise<LocalDurableFile> {
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

  async punch(offset: number, length: number): Promise<void> {
    await punchHole(this.#handle.fd, offset, length);
  }

  async allocate(offset: number, length: number): Promise<void> {
    await allocateRange(this.#handle.fd, offset, length);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

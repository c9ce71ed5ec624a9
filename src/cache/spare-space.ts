/**
 * Disk space that the cache's directory reserves for the daemon's own small files: the daemon must be able to create a
 * device's record and directory even when others have filled the disk and the cache has nothing left to evict.
 */
import { open, truncate } from 'node:fs/promises';
import { allocateRange } from '../io/posix.js';

const SPARE_BYTES_MAX = 1 << 20;
/** The limit on a very small file system. */
const SPARE_SHARE = 1 / 64;
/** The need of one request: a record, a few directories, and their blocks of metadata. */
const PIECE_BYTES = 128 * 1024;

export class SpareSpace {
  readonly #path: string;
  readonly #wantedBytes: number;
  #bytes = 0;

  /**
   * @param path - Of the file that holds the space. An earlier process may have made it.
   * @param diskBytes - How large its file system is.
   */
  constructor(path: string, diskBytes: number) {
    this.#path = path;
    this.#wantedBytes = Math.ceil(Math.min(SPARE_BYTES_MAX, diskBytes * SPARE_SHARE));
  }

  /** Allocates as much of the space as the disk has. Idempotent. */
  async fill(): Promise<void> {
    if (this.#bytes === this.#wantedBytes) return;
    try {
      const file = await open(this.#path, 'a', 0o600);
      try {
        await allocateRange(file.fd, 0, this.#wantedBytes).catch(() => {});
        this.#bytes = (await file.stat()).size;
      } finally {
        await file.close();
      }
    } catch {
      // A full disk, or a removed directory: the next call tries again.
    }
  }

  /** Gives a piece back to the disk. @returns False if nothing is left. */
  async spend(): Promise<boolean> {
    if (this.#bytes === 0) return false;
    const left = Math.max(0, this.#bytes - PIECE_BYTES);
    try {
      await truncate(this.#path, left);
    } catch {
      return false;
    }
    this.#bytes = left;
    return true;
  }
}

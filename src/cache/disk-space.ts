/**
 * The free space of the cache's file system, and the share of it that the cache leaves to other programs.
 *
 * statfs() is called once a second at most. In between, the answer counts what the cache itself stored and gave back:
 * some file systems report freed space only seconds later, and the cache must not evict the same bytes twice for it.
 */
import { statfs } from 'node:fs/promises';

const GIB = 2 ** 30;
const RESERVE_SHARE = 0.05;
const RESERVE_BYTES_MIN = GIB;
/** Caps the reserve on a disk so small that the minimum would take all of it. */
const RESERVE_SHARE_MAX = 0.5;
const CAPACITY_BYTES_MAX = 20 * GIB;
const CAPACITY_SHARE = 0.5;
const LOOK_MS = 1000;

/** How much the cache leaves free of a file system of `totalBytes` if the configuration names no amount. */
function defaultReserve(totalBytes: number): number {
  const wanted = Math.max(totalBytes * RESERVE_SHARE, RESERVE_BYTES_MIN);
  return Math.floor(Math.min(wanted, totalBytes * RESERVE_SHARE_MAX));
}

/** How much the cache stores on a file system of `totalBytes` if the configuration names no amount. */
export function defaultCapacity(totalBytes: number): number {
  return Math.floor(Math.min(CAPACITY_BYTES_MAX, totalBytes * CAPACITY_SHARE));
}

export class DiskSpace {
  readonly totalBytes: number;
  readonly reserveBytes: number;
  readonly #path: string;
  #freeBytes: number;
  /** On the clock of performance.now(). */
  #lookedAtMs: number;

  private constructor(path: string, totalBytes: number, freeBytes: number, reserveBytes: number) {
    this.#path = path;
    this.totalBytes = totalBytes;
    this.#freeBytes = freeBytes;
    this.#lookedAtMs = performance.now();
    this.reserveBytes = reserveBytes;
  }

  /**
   * @param path - A directory of the file system.
   * @param reserveBytes - To leave free; by default max(5 %, 1 GiB), and half of the file system at most.
   * @throws system errors.
   */
  static async of(path: string, reserveBytes: number | undefined): Promise<DiskSpace> {
    const { blocks, bavail, bsize } = await statfs(path);
    const total = blocks * bsize;
    return new DiskSpace(path, total, bavail * bsize, reserveBytes ?? defaultReserve(total));
  }

  /** The cache has filled so many bytes. */
  filled(bytes: number): void {
    this.#freeBytes -= bytes;
  }

  /** The cache has given so many bytes back. */
  freed(bytes: number): void {
    this.#freeBytes += bytes;
  }

  /** How many bytes are missing to the reserve once `bytes` more are filled; negative if there is more room. */
  async missing(bytes: number): Promise<number> {
    if (performance.now() - this.#lookedAtMs >= LOOK_MS) {
      this.#lookedAtMs = performance.now();
      try {
        const { bavail, bsize } = await statfs(this.#path);
        this.#freeBytes = bavail * bsize;
      } catch {
        // The directory has been removed. Storing reports any other fault.
        this.#freeBytes = this.totalBytes;
      }
    }
    return this.reserveBytes + bytes - this.#freeBytes;
  }
}

/**
 * A disk whose waiting reads can be ended, because its device is being taken away.
 *
 * The fetches behind the loads continue: other disks may wait for the same bytes, and closing the image ends them.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { RequestObserver } from './request-observer.js';
import type { VirtualDisk } from './virtual-disk.js';

export class EndableDisk implements VirtualDisk {
  readonly label: string;
  readonly sizeBytes: number;
  readWaitMs: number | undefined;
  observer: RequestObserver | undefined;
  readonly #disk: VirtualDisk;
  readonly #waiting = new Set<(error: ObdError) => void>();
  /** How many withoutLoads() calls are running. */
  #ending = 0;
  #endedAtMs = Number.NEGATIVE_INFINITY;

  constructor(disk: VirtualDisk) {
    this.label = disk.label;
    this.sizeBytes = disk.sizeBytes;
    this.#disk = disk;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    return this.#disk.tryRead(target, offset);
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    const beganMs = (deadlineMs ?? Number.POSITIVE_INFINITY) - (this.readWaitMs ?? 0);
    if (this.#ending > 0 || beganMs < this.#endedAtMs) throw this.#ended();
    let end: (error: ObdError) => void = () => {};
    const ended = new Promise<never>((_, reject) => {
      end = reject;
    });
    this.#waiting.add(end);
    try {
      await Promise.race([this.#disk.load(offset, length, deadlineMs), ended]);
    } finally {
      this.#waiting.delete(end);
    }
  }

  extentAt(offset: number, length: number): number {
    return this.#disk.extentAt(offset, length);
  }

  invalidate(offset: number, length: number): boolean {
    return this.#disk.invalidate(offset, length);
  }

  close(): void {
    this.#disk.close();
  }

  /** Fails the loads that wait now, and the next load of a read that began earlier and is between two loads. */
  endLoads(): void {
    this.#endedAtMs = performance.now();
    for (const end of this.#waiting) end(this.#ended());
  }

  async withoutLoads<T>(work: () => Promise<T>): Promise<T> {
    this.#ending++;
    this.endLoads();
    try {
      return await work();
    } finally {
      this.#ending--;
    }
  }

  #ended(): ObdError {
    const message = `Cannot read ${this.label}: its device is being taken away`;
    return new ObdError(ErrorCodes.Unavailable, message, { path: this.label });
  }
}

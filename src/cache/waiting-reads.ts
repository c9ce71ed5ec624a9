/** The reads that wait for chunks of one blob, for `obdctl devices` and for the log of outages. */
import type { Fetcher, Waiter } from './flight.js';

/** A read counts as waiting after this time. */
export const WAITING_MS_MIN = 1_000;

/** The waiting reads of one handle, and their reason. */
export interface Waits {
  readonly reads: number;
  /** How long the oldest has waited. */
  readonly ms: number;
  /** Why the last attempt failed; undefined before there was one. */
  readonly error: unknown;
}

export class WaitingReads {
  readonly #waiters = new Set<Waiter>();

  add(waiter: Waiter): void {
    this.#waiters.add(waiter);
  }

  delete(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  /** How many of them are of mounted disks. */
  get reads(): number {
    let reads = 0;
    for (const { isMounted } of this.#waiters) if (isMounted) reads++;
    return reads;
  }

  /** How long the oldest has waited; 0 without any. */
  get ms(): number {
    const nowMs = performance.now();
    let startedMs = nowMs;
    for (const waiter of this.#waiters) startedMs = Math.min(startedMs, waiter.startedMs);
    return nowMs - startedMs;
  }

  /**
   * The reads of a mounted disk that have waited through `fetcher` for WAITING_MS_MIN or longer.
   *
   * @param lastError - Why the blob failed last, for reads without a failed attempt of their own.
   */
  of(fetcher: Fetcher, lastError: unknown): Waits {
    const nowMs = performance.now();
    let reads = 0;
    let ms = 0;
    let error: unknown;
    for (const waiter of this.#waiters) {
      const waitedMs = nowMs - waiter.startedMs;
      if (waiter.fetcher !== fetcher || !waiter.isMounted || waitedMs < WAITING_MS_MIN) continue;
      reads++;
      ms = Math.max(ms, waitedMs);
      error ??= waiter.lastError;
    }
    return { reads, ms, error: reads === 0 ? undefined : (error ?? lastError) };
  }

  /** Ends the reads through `fetcher` with `error`. */
  fail(fetcher: Fetcher, error: unknown): void {
    for (const waiter of this.#waiters) if (waiter.fetcher === fetcher) waiter.fail(error);
  }
}

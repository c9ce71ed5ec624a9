/** Knows whether reads of devices wait for bytes of a registry, for work that must yield to them. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Between two looks while reads wait. */
const LOOK_MS = 20;

export class DemandWatch {
  #waiting = 0;
  /** When the last read ended its wait, on the clock of performance.now(). */
  #endedMs = Number.NEGATIVE_INFINITY;

  /** Runs `fetch`, for which a read waits. */
  async during<T>(fetch: () => Promise<T>): Promise<T> {
    this.#waiting++;
    try {
      return await fetch();
    } finally {
      this.#waiting--;
      this.#endedMs = performance.now();
    }
  }

  /** Whether no read waits, and none has for `idleMs`. */
  isIdle(idleMs: number): boolean {
    return this.#waiting === 0 && performance.now() - this.#endedMs >= idleMs;
  }

  /** Resolves when isIdle() is true. @throws the reason of `signal`. */
  async idle(idleMs: number, signal: AbortSignal): Promise<void> {
    while (!this.isIdle(idleMs)) {
      const restMs = this.#waiting > 0 ? 0 : this.#endedMs + idleMs - performance.now();
      await sleep(Math.max(LOOK_MS, restMs), undefined, { signal, ref: false });
    }
  }
}

/**
 * Ranges that the reader of a mounted disk invalidates and refetches because they fail a check. The reader pauses between
 * attempts, and those pauses count as waiting. Pauses double (io/random-access-file.ts), so a reader that has not
 * retried after twice its last pause has its bytes or has given up.
 */

/** More than the concurrent reads of a device. */
const RANGES_MAX = 256;
/** The longest pause, and a fetch. */
const SILENT_MS_MAX = 6_000;
const SILENT_MS_MIN = 1_000;

interface Refetched {
  readonly sinceMs: number;
  lastMs: number;
  untilMs: number;
}

export class RefetchedRanges {
  readonly #ranges = new Map<string, Refetched>();

  /** The range was invalidated. */
  invalidated(offset: number, length: number): void {
    const nowMs = performance.now();
    for (const [key, { untilMs }] of this.#ranges) if (untilMs < nowMs) this.#ranges.delete(key);
    const key = `${offset} ${length}`;
    const range = this.#ranges.get(key);
    if (range === undefined) {
      if (this.#ranges.size === RANGES_MAX) return;
      this.#ranges.set(key, { sinceMs: nowMs, lastMs: nowMs, untilMs: nowMs + SILENT_MS_MIN });
      return;
    }
    const silentMs = 2 * (nowMs - range.lastMs) + SILENT_MS_MIN;
    range.untilMs = nowMs + Math.min(silentMs, SILENT_MS_MAX);
    range.lastMs = nowMs;
  }

  /** How many ranges have been refetched for `msMin` or longer, and for how many ms the oldest of them. */
  waits(msMin: number): { readonly reads: number; readonly ms: number } {
    const nowMs = performance.now();
    let reads = 0;
    let ms = 0;
    for (const { sinceMs, untilMs } of this.#ranges.values()) {
      if (untilMs < nowMs || nowMs - sinceMs < msMin) continue;
      reads++;
      ms = Math.max(ms, nowMs - sinceMs);
    }
    return { reads, ms };
  }
}

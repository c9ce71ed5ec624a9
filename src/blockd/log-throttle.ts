/** Keeps repeated lines from filling a disk: logs the first of a kind, then one per PERIOD_MS with a count. */

const PERIOD_MS = 10_000;
/** Kinds that are remembered; the oldest is logged in full again. */
const KINDS_MAX = 1024;

interface Kind {
  readonly loggedMs: number;
  /** Since then. */
  suppressed: number;
}

export class LogThrottle {
  readonly #kinds = new Map<string, Kind>();

  /**
   * @param kind - The key of repetition: the event and its object.
   * @param log - Called with how many of the kind were suppressed since the last one that was logged.
   */
  log(kind: string, log: (suppressed: number) => void): void {
    const nowMs = performance.now();
    const known = this.#kinds.get(kind);
    if (known !== undefined && nowMs - known.loggedMs < PERIOD_MS) {
      known.suppressed++;
      return;
    }
    this.#kinds.delete(kind);
    const [oldest] = this.#kinds.keys();
    if (oldest !== undefined && this.#kinds.size >= KINDS_MAX) this.#kinds.delete(oldest);
    this.#kinds.set(kind, { loggedMs: nowMs, suppressed: 0 });
    log(known?.suppressed ?? 0);
  }
}

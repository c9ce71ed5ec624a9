/**
 * Logs which origins fail: one line when reads of mounted disks begin to wait for an origin, and one when all its
 * failed blobs have succeeded, or are no longer fetched. A flapping origin gets a pair of lines every QUIET_MS at most.
 *
 * Also limits the rate of attempts at a failing origin, for any number of blobs. An origin is that of a BlobKey: for
 * the daemon, a registry.
 */

const QUIET_MS = 10_000;
/** Between two attempts at failing blobs of one origin. */
const RETRY_SPACING_MS = 50;

export interface OutageLog {
  /** @param waitingMs - How long the oldest of the `waiting` reads has waited. */
  unavailable(outage: {
    readonly origin: string;
    readonly waiting: number;
    readonly sinceMs: number;
    readonly err: unknown;
  }): void;
  recovered(outage: { readonly origin: string; readonly afterMs: number }): void;
  /** No failed blob is fetched any more: no read waits, and the state of the origin is unknown. */
  left(outage: { readonly origin: string; readonly afterMs: number }): void;
}

/** The waiting reads of a blob. */
export interface WaitedFor {
  readonly waitingReads: number;
  /** How long the oldest of them has waited. */
  readonly waitingMs: number;
}

interface Outage {
  readonly failing: Set<WaitedFor>;
  readonly startedMs: number;
  isLogged: boolean;
}

export class SourceOutages {
  readonly #log: OutageLog;
  readonly #outages = new Map<string, Outage>();
  /** When each origin was last logged. #mayLog() deletes entries older than QUIET_MS. */
  readonly #loggedMs = new Map<string, number>();
  /** When the next attempt at each origin is free. */
  readonly #takenMs = new Map<string, number>();

  constructor(log: OutageLog) {
    this.#log = log;
  }

  /** An attempt at the blob has failed, or a read of it has waited in vain. */
  failed(origin: string, blob: WaitedFor, err: unknown): void {
    let outage = this.#outages.get(origin);
    if (outage === undefined) {
      outage = { failing: new Set(), startedMs: performance.now(), isLogged: false };
      this.#outages.set(origin, outage);
    }
    outage.failing.add(blob);
    if (outage.isLogged || !this.#mayLog(origin)) return;
    let waiting = 0;
    let sinceMs = 0;
    for (const { waitingReads, waitingMs } of outage.failing) {
      waiting += waitingReads;
      sinceMs = Math.max(sinceMs, Math.round(waitingMs));
    }
    if (waiting === 0) return;
    outage.isLogged = true;
    this.#loggedMs.set(origin, performance.now());
    this.#log.unavailable({ origin, waiting, sinceMs, err });
  }

  /** The blob gives bytes. */
  succeeded(origin: string, blob: WaitedFor): void {
    this.#without(origin, blob, (outage) => this.#log.recovered(outage));
  }

  /** Nothing of the blob is in flight any more, so nothing would show that the origin is back. */
  gaveUp(origin: string, blob: WaitedFor): void {
    this.#without(origin, blob, (outage) => this.#log.left(outage));
  }

  /** Takes the next attempt at a failing blob of the origin. @returns When it is: now or later. */
  nextSlotMs(origin: string): number {
    const freeMs = Math.max(performance.now(), this.#takenMs.get(origin) ?? 0);
    this.#takenMs.set(origin, freeMs + RETRY_SPACING_MS);
    return freeMs;
  }

  #without(origin: string, blob: WaitedFor, tell: OutageLog['recovered']): void {
    const outage = this.#outages.get(origin);
    if (outage?.failing.delete(blob) !== true || outage.failing.size > 0) return;
    this.#outages.delete(origin);
    this.#takenMs.delete(origin);
    const afterMs = Math.round(performance.now() - outage.startedMs);
    if (outage.isLogged) tell({ origin, afterMs });
  }

  #mayLog(origin: string): boolean {
    const sinceMs = performance.now() - QUIET_MS;
    for (const [each, atMs] of this.#loggedMs) if (atMs < sinceMs) this.#loggedMs.delete(each);
    return !this.#loggedMs.has(origin);
  }
}

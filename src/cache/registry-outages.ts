/**
 * Logs which registries fail: one line when reads of mounted disks begin to wait for a registry, and one when all its
 * failed blobs have succeeded, or the last of them is closed. A flapping registry gets a pair of lines every QUIET_MS at
 * most.
 *
 * Also limits the rate of attempts at a failing registry, for any number of blobs.
 */

const QUIET_MS = 10_000;
/** Between two attempts at failing blobs of one registry. */
const RETRY_SPACING_MS = 50;

export interface OutageLog {
  /** @param waitingMs - How long the oldest of the `waiting` reads has waited. */
  unavailable(outage: {
    readonly registry: string;
    readonly waiting: number;
    readonly sinceMs: number;
    readonly err: unknown;
  }): void;
  recovered(outage: { readonly registry: string; readonly afterMs: number }): void;
  /** Every failed blob is closed: no read waits, and the state of the registry is unknown. */
  left(outage: { readonly registry: string; readonly afterMs: number }): void;
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

export class RegistryOutages {
  readonly #log: OutageLog;
  readonly #outages = new Map<string, Outage>();
  /** When each registry was last logged. #mayLog() deletes entries older than QUIET_MS. */
  readonly #loggedMs = new Map<string, number>();
  /** When the next attempt at each registry is free. */
  readonly #takenMs = new Map<string, number>();

  constructor(log: OutageLog) {
    this.#log = log;
  }

  /** An attempt at the blob has failed, or a read of it has waited in vain. */
  failed(registry: string, blob: WaitedFor, err: unknown): void {
    let outage = this.#outages.get(registry);
    if (outage === undefined) {
      outage = { failing: new Set(), startedMs: performance.now(), isLogged: false };
      this.#outages.set(registry, outage);
    }
    outage.failing.add(blob);
    if (outage.isLogged || !this.#mayLog(registry)) return;
    let waiting = 0;
    let sinceMs = 0;
    for (const { waitingReads, waitingMs } of outage.failing) {
      waiting += waitingReads;
      sinceMs = Math.max(sinceMs, Math.round(waitingMs));
    }
    if (waiting === 0) return;
    outage.isLogged = true;
    this.#loggedMs.set(registry, performance.now());
    this.#log.unavailable({ registry, waiting, sinceMs, err });
  }

  /** The blob gives bytes. */
  succeeded(registry: string, blob: WaitedFor): void {
    this.#without(registry, blob, (outage) => this.#log.recovered(outage));
  }

  /** The blob is closed, so its outcome no longer matters. */
  closed(registry: string, blob: WaitedFor): void {
    this.#without(registry, blob, (outage) => this.#log.left(outage));
  }

  /** Takes the next attempt at a failing blob of the registry. @returns When it is: now or later. */
  nextSlotMs(registry: string): number {
    const freeMs = Math.max(performance.now(), this.#takenMs.get(registry) ?? 0);
    this.#takenMs.set(registry, freeMs + RETRY_SPACING_MS);
    return freeMs;
  }

  #without(registry: string, blob: WaitedFor, tell: OutageLog['recovered']): void {
    const outage = this.#outages.get(registry);
    if (outage?.failing.delete(blob) !== true || outage.failing.size > 0) return;
    this.#outages.delete(registry);
    this.#takenMs.delete(registry);
    const afterMs = Math.round(performance.now() - outage.startedMs);
    if (outage.isLogged) tell({ registry, afterMs });
  }

  #mayLog(registry: string): boolean {
    const sinceMs = performance.now() - QUIET_MS;
    for (const [each, atMs] of this.#loggedMs) if (atMs < sinceMs) this.#loggedMs.delete(each);
    return !this.#loggedMs.has(registry);
  }
}

/**
 * Decides when fetches of a failing blob are retried.
 *
 * While the blob is healthy, every flight starts at once. From the first failure to the next success, the whole blob has
 * one attempt at a time, with pauses that double up to BACKOFF_MS_MAX: hundreds of waiting reads ask a failing source
 * no more often than one. Flights take turns, and each also waits for its own back-off, so that a range that always
 * fails does not block the others.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { Flight } from './flight.js';

const BACKOFF_MS = 200;
/** Longer pauses would use up a read's deadline in a few attempts. */
const BACKOFF_MS_MAX = 5_000;
/** A source may ask for an hour; the read retries, or fails, sooner. */
const RETRY_AFTER_MS_MAX = 30_000;

export class BlobHealth {
  /** A read has waited in vain for a whole deadline, and no attempt has succeeded since. */
  isDead = false;
  /** The latest failure. */
  lastError: unknown;
  lastSuccessMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #resumeAtMs = 0;
  /** The flight that has the one attempt of a failing blob. */
  #granted: Flight | undefined;
  /** When this blob's next attempt may start; undefined before one is ready. */
  #slotMs: number | undefined;
  readonly #turns = new Map<Flight, () => void>();
  #timer: NodeJS.Timeout | undefined;
  readonly #nextSlotMs: () => number;

  /** @param nextSlotMs - Takes the next attempt at the blob's origin: now or later. */
  constructor(nextSlotMs: () => number) {
    this.#nextSlotMs = nextSlotMs;
  }

  get isFailing(): boolean {
    return this.#failures > 0;
  }

  /** Whether the flight has to wait for turn() before its next attempt. */
  holdsBack(flight: Flight): boolean {
    if (flight === this.#granted) return false;
    return this.isFailing || flight.notBeforeMs > performance.now();
  }

  /** Resolves when the flight may try, or is over. succeeded(), failed() or gaveUp() has to follow. */
  turn(flight: Flight): Promise<void> {
    return new Promise((resolve) => {
      this.#turns.set(flight, resolve);
      this.#pump();
    });
  }

  succeeded(flight: Flight): void {
    this.#failures = 0;
    this.#slotMs = undefined;
    this.isDead = false;
    this.lastError = undefined;
    this.lastSuccessMs = performance.now();
    this.gaveUp(flight);
  }

  failed(flight: Flight, error: unknown): void {
    const nowMs = performance.now();
    // Attempts in flight together fail together, and count once.
    if (nowMs >= this.#resumeAtMs) {
      this.#failures++;
      this.#resumeAtMs = nowMs + pauseMs(this.#failures, error);
    }
    this.lastError = error;
    flight.failures++;
    flight.notBeforeMs = nowMs + pauseMs(flight.failures, error);
    this.gaveUp(flight);
  }

  /** A read has waited for a whole deadline; there may have been no answer at all. */
  expired(): void {
    this.isDead = true;
    if (!this.isFailing) this.#failures = 1;
  }

  /** Makes the flight's attempt in progress the one attempt of the failing blob. */
  grant(flight: Flight): void {
    this.#granted ??= flight;
  }

  /** The attempt has ended, or the whole flight has. */
  gaveUp(flight: Flight): void {
    if (this.#granted === flight) this.#granted = undefined;
    if (flight.isOver) this.#go(flight);
    this.#pump();
  }

  #pump(): void {
    clearTimeout(this.#timer);
    const nowMs = performance.now();
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const flight of this.#turns.keys()) {
      if (this.isFailing && this.#granted !== undefined) return;
      let atMs = Math.max(flight.notBeforeMs, this.isFailing ? this.#resumeAtMs : 0);
      if (this.isFailing && atMs <= nowMs) {
        this.#slotMs ??= this.#nextSlotMs();
        atMs = this.#slotMs;
      }
      earliestMs = Math.min(earliestMs, atMs);
      if (atMs > nowMs) continue;
      if (this.isFailing) {
        this.#granted = flight;
        this.#slotMs = undefined;
      }
      this.#go(flight);
    }
    if (this.#turns.size > 0 && this.#granted === undefined) {
      this.#timer = setTimeout(() => this.#pump(), Math.max(1, earliestMs - nowMs));
    }
  }

  #go(flight: Flight): void {
    const go = this.#turns.get(flight);
    this.#turns.delete(flight);
    go?.();
  }
}

function pauseMs(failures: number, error: unknown): number {
  const full = Math.min(BACKOFF_MS * 2 ** (failures - 1), BACKOFF_MS_MAX);
  const asked = error instanceof ObdError ? (error.details.retryAfterMs ?? 0) : 0;
  return Math.max(full * (0.5 + Math.random() / 2), Math.min(asked, RETRY_AFTER_MS_MAX));
}

/** Whether the error is a bug, so that no retry can help. */
export function isBug(error: unknown): boolean {
  return !(error instanceof ObdError);
}

/**
 * Whether the client is closed, because the daemon stops. Reads of a mounted disk stay unanswered then: the next daemon
 * answers them.
 */
export function isClosed(error: unknown): boolean {
  return hasCode(error, ErrorCodes.FailedPrecondition);
}

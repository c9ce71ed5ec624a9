/**
 * Chunks of a blob on their way, and the reads that wait for them.
 *
 * A Waiter is one load(): it waits for one or more flights, until its own deadline and no longer. A flight goes on for as
 * long as somebody waits for it, whatever the answers are; each of its attempts goes through the handle of one of them.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { BlobRanges } from '../registry/blob-ranges.js';
import { SpeedFloor } from '../registry/speed-floor.js';

/** Who wants chunks: a handle, with its own way to the registry. */
export interface Fetcher {
  readonly ranges: BlobRanges;
  /** Counts what fetching caused. */
  onRequest(): void;
  onBytes(bytes: number): void;
}

type FlightState = 'queued' | 'fetching' | 'keeping' | 'landed';

/** Chunks [first, end). Only a queued flight grows. */
export class Flight {
  /** Who asked first. Only its neighbours join. */
  readonly owner: Fetcher;
  first: number;
  end: number;
  state: FlightState = 'queued';
  readonly waiters = new Set<Waiter>();
  /** Of the attempt under way. */
  abort = new AbortController();
  lastFetcher: Fetcher;
  lastError: unknown;
  failures = 0;
  /** On the clock of performance.now(): no attempt starts before. */
  notBeforeMs = 0;
  /** A read has waited for it in vain for a whole deadline. */
  isDead = false;
  /** It is left to a stream of the whole blob. */
  isParked = false;
  /** The begin of the next chunk, from an attempt that broke within it. */
  rest: Uint8Array | undefined;
  readonly floor = new SpeedFloor();

  constructor(owner: Fetcher, first: number, end: number) {
    this.owner = owner;
    this.lastFetcher = owner;
    this.first = first;
    this.end = end;
  }

  get isOver(): boolean {
    return this.state === 'landed';
  }

  get chunks(): number {
    return this.end - this.first;
  }

  /** For the next attempt: the handles that wait take turns, as one may be refused what another is given. */
  nextFetcher(): Fetcher {
    const waiting = [...new Set([...this.waiters].map(({ fetcher }) => fetcher))];
    const step = this.failures === 0 && waiting.includes(this.lastFetcher) ? 0 : 1;
    // indexOf() of what is not there is -1: the first.
    const next = waiting[(waiting.indexOf(this.lastFetcher) + step) % waiting.length];
    this.lastFetcher = next ?? this.lastFetcher;
    return this.lastFetcher;
  }
}

export class Waiter {
  readonly fetcher: Fetcher;
  /** Of a mounted disk: every failure is waited out. Otherwise only `Unavailable` is. */
  readonly isMounted: boolean;
  readonly startedMs = performance.now();
  readonly waitMs: number;
  /** Settles with the read. */
  readonly done: Promise<void>;
  lastError: unknown;
  hasExpired = false;
  readonly #flights: Set<Flight>;
  readonly #onExpired: (waiter: Waiter) => number;
  readonly #onLeft: (waiter: Waiter, flights: ReadonlySet<Flight>) => void;
  #timer: NodeJS.Timeout;
  #settle: (error?: unknown) => void = () => {};

  /**
   * @param onExpired - Its time is up. What it answers is waited for, in ms; 0 is an end.
   * @param onLeft - It waits for these no more: they have landed, or it has failed.
   */
  constructor(
    fetcher: Fetcher,
    flights: readonly Flight[],
    { isMounted, waitMs }: { readonly isMounted: boolean; readonly waitMs: number },
    onExpired: (waiter: Waiter) => number,
    onLeft: (waiter: Waiter, flights: ReadonlySet<Flight>) => void,
  ) {
    this.fetcher = fetcher;
    this.isMounted = isMounted;
    this.waitMs = waitMs;
    this.#flights = new Set(flights);
    this.#onExpired = onExpired;
    this.#onLeft = onLeft;
    this.done = new Promise((resolve, reject) => {
      this.#settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    for (const flight of flights) flight.waiters.add(this);
    this.#timer = setTimeout(() => this.#expire(), waitMs);
  }

  /** One of its flights is over, well. */
  landed(flight: Flight): void {
    flight.waiters.delete(this);
    this.#flights.delete(flight);
    if (this.#flights.size === 0) this.#end();
  }

  /** `by` goes on with what `flight` was to bring. */
  moved(flight: Flight, by: Flight): void {
    flight.waiters.delete(this);
    this.#flights.delete(flight);
    this.#flights.add(by);
    by.waiters.add(this);
  }

  fail(error: unknown): void {
    this.#end(error);
  }

  #expire(): void {
    const moreMs = this.#onExpired(this);
    if (moreMs > 0) {
      this.#timer = setTimeout(() => this.#expire(), moreMs);
      return;
    }
    this.hasExpired = true;
    this.fail(this.#expired());
  }

  #expired(): ObdError {
    const { ranges } = this.fetcher;
    const waited = `not done within ${Math.round(performance.now() - this.startedMs) / 1000} s`;
    const last =
      this.lastError === undefined
        ? 'there was no answer'
        : `the last attempt: ${messageOf(this.lastError)}`;
    const message = `Cannot read ${ranges.label}: ${waited}; ${last}`;
    const { digest } = ranges;
    return new ObdError(ErrorCodes.Unavailable, message, { digest }, this.lastError);
  }

  #end(error?: unknown): void {
    clearTimeout(this.#timer);
    const left = new Set(this.#flights);
    this.#flights.clear();
    for (const flight of left) flight.waiters.delete(this);
    this.#settle(error);
    this.#onLeft(this, left);
  }
}

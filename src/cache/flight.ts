/**
 * Chunks of a blob in flight, and the reads that wait for them.
 *
 * A Waiter is one load(): it waits for one or more flights, until its own deadline and no longer. A flight retries after
 * any answer for as long as a Waiter waits for it; each attempt goes through the handle of one of its Waiters.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { RangeFill, type Urgency } from '../io/ranged-source.js';
import { SpeedFloor } from '../io/speed-floor.js';
import type { BlobSource } from './blob-source.js';
import type { ImageReads } from './image-reads.js';

/** A handle that requests chunks from its own source. */
export interface Fetcher {
  readonly source: BlobSource;
  /**
   * Called when a read misses the chunk.
   *
   * @returns Whether the chunk is about to be fetched anyway, and with it the chunks that the read wants next.
   */
  missed(chunk: number): boolean;
  /** Counts the reads of the handle's image; undefined for a blob of no image. */
  readonly image: ImageReads | undefined;
  /** Count the requests and bytes that the handle caused. */
  onRequest(): void;
  onBytes(bytes: number): void;
}

/** How a range is fetched. */
export interface FetchOptions {
  readonly urgency: Urgency;
  /** How long a read of a mounted disk may wait; undefined while the image is opened. */
  readonly waitMs: number | undefined;
}

type FlightState = 'queued' | 'fetching' | 'keeping' | 'landed';

/** Chunks [first, end). Only a queued flight grows; a fetching one gives the chunks that have arrived to other flights. */
export class Flight {
  /** The first requester. Only its own adjacent requests join the flight. */
  readonly owner: Fetcher;
  first: number;
  end: number;
  /** Becomes `demand` when a demand waits for it. */
  urgency: Urgency;
  state: FlightState = 'queued';
  readonly waiters = new Set<Waiter>();
  /** Aborts the current attempt. */
  abort = new AbortController();
  lastFetcher: Fetcher;
  lastError: unknown;
  failures = 0;
  /** No attempt starts before this time of performance.now(). */
  notBeforeMs = 0;
  /** A read has waited a whole deadline for this flight in vain. */
  isDead = false;
  /** A stream of the whole blob brings its chunks. */
  isParked = false;
  /** An answer that paused was left for another connection. */
  wasLeft = false;
  /** The beginning of the next chunk, from an attempt that broke within it. */
  rest: Uint8Array | undefined;
  readonly floor = new SpeedFloor();

  constructor(owner: Fetcher, first: number, end: number, urgency: Urgency) {
    this.owner = owner;
    this.lastFetcher = owner;
    this.first = first;
    this.end = end;
    this.urgency = urgency;
  }

  get isOver(): boolean {
    return this.state === 'landed';
  }

  get chunks(): number {
    return this.end - this.first;
  }

  /** Whether no read waits for it, and none has. */
  get isOptional(): boolean {
    return this.urgency !== 'demand' && this.waiters.size === 0;
  }

  get image(): ImageReads | undefined {
    return this.owner.image;
  }

  /** How many bytes its next attempt requests; the last chunk counts as a whole one. */
  get bytes(): number {
    return this.chunks * CHUNK_BYTES;
  }

  /** Changes where it begins. The rest of another chunk is of no use there. */
  moveFirst(first: number): void {
    if (first !== this.first) this.rest = undefined;
    this.first = first;
  }

  /** Whether a read waits for a chunk before `end` and for none from there on. */
  endsAWait(end: number): boolean {
    for (const waiter of this.waiters) {
      if (waiter.first < end && Math.min(waiter.end, this.end) <= end) return true;
    }
    return false;
  }

  /** Splits off the chunks before `end`, which have arrived. @returns Their own flight. */
  split(end: number): Flight {
    const arrived = new Flight(this.owner, this.first, end, this.urgency);
    arrived.state = 'keeping';
    this.first = end;
    for (const waiter of [...this.waiters]) {
      if (waiter.first < end) waiter.add(arrived);
      if (waiter.end <= end) waiter.leave(this);
    }
    return arrived;
  }

  /** The range for the next attempt, with the bytes of an incomplete chunk that the last attempt left. */
  nextFill(blobBytes: number): RangeFill {
    const offset = this.first * CHUNK_BYTES;
    const end = Math.min(this.end * CHUNK_BYTES, blobBytes);
    const fill = new RangeFill(Buffer.alloc(end - offset), offset, this.floor);
    if (this.rest !== undefined) {
      fill.bytes.set(this.rest);
      fill.filled = this.rest.length;
      this.rest = undefined;
    }
    return fill;
  }

  /** Picks the handle for the next attempt. Waiting handles take turns: one may have access that another lacks. */
  nextFetcher(): Fetcher {
    const waiting = [...new Set([...this.waiters].map(({ fetcher }) => fetcher))];
    const step = this.failures === 0 && waiting.includes(this.lastFetcher) ? 0 : 1;
    // indexOf() returns -1 for an absent handle, which selects the first.
    const next = waiting[(waiting.indexOf(this.lastFetcher) + step) % waiting.length];
    this.lastFetcher = next ?? this.lastFetcher;
    return this.lastFetcher;
  }
}

export class Waiter {
  readonly fetcher: Fetcher;
  /** It waits for chunks [first, end), as far as they were missing. */
  readonly first: number;
  readonly end: number;
  /** A read of a mounted disk waits through every failure, other reads only through `Unavailable`. */
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
   * @param onExpired - Called at the deadline. Returns how many ms to wait longer; 0 fails the read.
   * @param onLeft - Called when the Waiter ends, with its flights that have not landed.
   */
  constructor(
    fetcher: Fetcher,
    { first, end }: { readonly first: number; readonly end: number },
    flights: readonly Flight[],
    { isMounted, waitMs }: { readonly isMounted: boolean; readonly waitMs: number },
    onExpired: (waiter: Waiter) => number,
    onLeft: (waiter: Waiter, flights: ReadonlySet<Flight>) => void,
  ) {
    this.fetcher = fetcher;
    this.first = first;
    this.end = end;
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

  /** One of its flights has succeeded. */
  landed(flight: Flight): void {
    flight.waiters.delete(this);
    this.#flights.delete(flight);
    if (this.#flights.size === 0) this.#end();
  }

  /** Waits for `flight` too. */
  add(flight: Flight): void {
    this.#flights.add(flight);
    flight.waiters.add(this);
  }

  /** Waits for `flight` no more: another one brings its chunks. */
  leave(flight: Flight): void {
    flight.waiters.delete(this);
    this.#flights.delete(flight);
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
    const { source } = this.fetcher;
    const waited = `not done within ${Math.round(performance.now() - this.startedMs) / 1000} s`;
    const last =
      this.lastError === undefined
        ? 'there was no answer'
        : `the last attempt: ${messageOf(this.lastError)}`;
    const message = `Cannot read ${source.label}: ${waited}; ${last}`;
    const { digest } = source.key;
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

/**
 * The flights of one blob, by chunk: a chunk is in one flight at most, and in none once it is cached.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { Urgency } from '../io/ranged-source.js';
import type { ChunkStore } from './chunk-store.js';
import { type Fetcher, Flight, type Waiter } from './flight.js';

/** Long enough that a request's overhead does not count, short enough that several of them share a link fairly. */
const FLIGHT_BYTES_MAX = 1 << 20;
const FLIGHT_CHUNKS_MAX = FLIGHT_BYTES_MAX / CHUNK_BYTES;

export class FlightMap {
  readonly #store: ChunkStore;
  readonly #flights = new Map<number, Flight>();

  constructor(store: ChunkStore) {
    this.#store = store;
  }

  get size(): number {
    return this.#flights.size;
  }

  /** Each flight once. */
  all(): Set<Flight> {
    return new Set(this.#flights.values());
  }

  at(chunk: number): Flight | undefined {
    return this.#flights.get(chunk);
  }

  has(chunk: number): boolean {
    return this.#flights.has(chunk);
  }

  /** Whether the chunk is neither cached nor in flight. */
  isMissing(chunk: number): boolean {
    return !this.#store.isCached(chunk) && !this.#flights.has(chunk);
  }

  /** The end of the run of missing chunks from `first` on, up to `end` and the length of a flight. */
  runEnd(first: number, end: number): number {
    const endMax = Math.min(end, first + FLIGHT_CHUNKS_MAX);
    let runEnd = first;
    while (runEnd < endMax && this.isMissing(runEnd)) runEnd++;
    return runEnd;
  }

  add(owner: Fetcher, first: number, end: number, urgency: Urgency): Flight {
    const flight = new Flight(owner, first, end, urgency);
    this.#claim(flight, first, end);
    return flight;
  }

  /** Adds missing chunks [first, end) to an adjacent queued flight with room, if there is one. */
  join(owner: Fetcher, first: number, end: number): Flight | undefined {
    for (const flight of [this.#flights.get(first - 1), this.#flights.get(end)]) {
      if (flight?.state !== 'queued' || flight.failures > 0 || flight.owner !== owner) continue;
      if (flight.chunks + end - first > FLIGHT_CHUNKS_MAX) continue;
      if (first < flight.first) flight.moveFirst(first);
      flight.end = Math.max(flight.end, end);
      this.#claim(flight, first, end);
      return flight;
    }
    return undefined;
  }

  /** Grows a queued flight over the missing chunks next to it, within [first, end) and the length of a flight. */
  grow(flight: Flight, first: number, end: number): void {
    if (flight.state !== 'queued') return;
    const hasRoom = () => flight.chunks < FLIGHT_CHUNKS_MAX;
    while (hasRoom() && flight.end < end && this.isMissing(flight.end)) {
      this.#flights.set(flight.end++, flight);
    }
    while (hasRoom() && flight.first > first && this.isMissing(flight.first - 1)) {
      flight.moveFirst(flight.first - 1);
      this.#flights.set(flight.first, flight);
    }
  }

  /** Splits off the chunks before `end`, which have arrived. */
  split(flight: Flight, end: number): Flight {
    const arrived = flight.split(end);
    this.#claim(arrived, arrived.first, end);
    return arrived;
  }

  /**
   * Narrows a flight whose attempt failed to what reads wait for, so that no read waits for a range that only others need:
   * to the first run of such chunks.
   *
   * @returns The other runs, which are in no flight any more, with the reads that wait for them.
   */
  narrow(flight: Flight): AwaitedRun[] {
    const [own, ...others] = awaitedRuns(flight);
    this.delete(flight);
    if (own === undefined) return [];
    flight.moveFirst(own.first);
    flight.end = own.end;
    this.#claim(flight, own.first, own.end);
    for (const { waiters } of others) {
      for (const waiter of waiters) if (!own.waiters.has(waiter)) waiter.leave(flight);
    }
    return others;
  }

  delete(flight: Flight): void {
    for (let chunk = flight.first; chunk < flight.end; chunk++) this.#flights.delete(chunk);
  }

  #claim(flight: Flight, first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) this.#flights.set(chunk, flight);
  }
}

interface AwaitedRun {
  readonly first: number;
  readonly end: number;
  readonly waiters: ReadonlySet<Waiter>;
}

/** The runs of a flight's chunks that reads wait for, ascending. Reads of adjacent chunks share a run. */
function awaitedRuns(flight: Flight): AwaitedRun[] {
  const runs: { first: number; end: number; readonly waiters: Set<Waiter> }[] = [];
  const waiters = [...flight.waiters].sort((a, b) => a.first - b.first);
  for (const waiter of waiters) {
    const first = Math.max(waiter.first, flight.first);
    const end = Math.min(waiter.end, flight.end);
    const last = runs.at(-1);
    if (last === undefined || first > last.end) {
      runs.push({ first, end, waiters: new Set([waiter]) });
    } else {
      last.end = Math.max(last.end, end);
      last.waiters.add(waiter);
    }
  }
  return runs;
}

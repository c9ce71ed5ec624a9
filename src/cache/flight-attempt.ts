/**
 * One attempt at a flight: stores its chunks as they arrive, so that a read of the first ones does not wait for the last.
 *
 * Chunks that have arrived get a flight of their own, which only has to be stored: nothing that becomes of the attempt
 * affects them any more.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { RangeFill } from '../io/ranged-source.js';
import type { ChunkStore } from './chunk-store.js';
import type { Fetcher, Flight } from './flight.js';
import type { FlightMap } from './flight-map.js';

/** Chunks are stored when a read waits for no more than them, or when so many have arrived: 256 KiB. */
const ARRIVED_CHUNKS_MAX = 4;
/** Incomplete chunks that one blob keeps from one attempt to the next: 4 MiB. */
const RESTS_MAX = 64;

export class FlightAttempt {
  readonly #flight: Flight;
  readonly #fetcher: Fetcher;
  readonly #fill: RangeFill;
  readonly #store: ChunkStore;
  readonly #flights: FlightMap;
  /** The first chunk of the fill. */
  readonly #base: number;

  constructor(
    flight: Flight,
    fetcher: Fetcher,
    fill: RangeFill,
    store: ChunkStore,
    flights: FlightMap,
  ) {
    this.#flight = flight;
    this.#fetcher = fetcher;
    this.#fill = fill;
    this.#store = store;
    this.#flights = flights;
    this.#base = flight.first;
  }

  /** Stores what has arrived, if it is worth it. @returns Its flight, once it is stored. */
  storeArrived(): Promise<Flight> | undefined {
    const flight = this.#flight;
    const end = this.#arrivedEnd;
    // The attempt itself stores the last chunk.
    if (flight.isOver || end >= flight.end || end <= flight.first) return undefined;
    if (end - flight.first < ARRIVED_CHUNKS_MAX && !flight.endsAWait(end)) return undefined;
    return this.#storeUntil(end);
  }

  /** The fill is full. */
  async storeRest(): Promise<void> {
    const flight = this.#flight;
    flight.state = 'keeping';
    await this.#keep(flight.first, flight.end);
  }

  /**
   * The attempt broke: keeps the whole chunks that came before, and the beginning of the next one.
   * @returns The flight of the whole chunks, once they are stored.
   */
  async storePart(): Promise<Flight | undefined> {
    const flight = this.#flight;
    const end = this.#arrivedEnd;
    let arrived: Flight | undefined;
    if (end > flight.first && !flight.isOver) {
      flight.state = 'keeping';
      arrived = await this.#storeUntil(end);
    }
    const { bytes, filled } = this.#fill;
    const rest = bytes.subarray((end - this.#base) * CHUNK_BYTES, filled);
    if (rest.length > 0 && this.#rests < RESTS_MAX) flight.rest = Uint8Array.from(rest);
    return arrived;
  }

  get #arrivedEnd(): number {
    return this.#base + Math.floor(this.#fill.filled / CHUNK_BYTES);
  }

  get #rests(): number {
    let rests = 0;
    for (const { rest } of this.#flights.all()) if (rest !== undefined) rests++;
    return rests;
  }

  async #storeUntil(end: number): Promise<Flight> {
    const arrived = this.#flights.split(this.#flight, end);
    await this.#keep(arrived.first, end);
    return arrived;
  }

  async #keep(first: number, end: number): Promise<void> {
    const { bytes } = this.#fill;
    const from = (first - this.#base) * CHUNK_BYTES;
    const part = bytes.subarray(from, Math.min((end - this.#base) * CHUNK_BYTES, bytes.length));
    this.#fetcher.onBytes(part.length);
    await this.#store.keep(first, part);
  }
}

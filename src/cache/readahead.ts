/**
 * Fetches the chunks of one blob that no read waits for yet: around a miss, ahead of a sweep, and all the rest of the blob for
 * a start that reads most of its image.
 *
 * fetch-window.ts decides about misses and sweeps. A sweep that finds all its chunks in the cache sends no message to this
 * thread, so Readahead looks at the chunks' bits each POLL_MS while there is a sweep, and at each arrival.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { Urgency } from '../io/ranged-source.js';
import type { ChunkStore } from './chunk-store.js';
import { type ChunkRange, FetchWindows } from './fetch-window.js';
import type { Fetcher } from './flight.js';
import type { FlightMap } from './flight-map.js';
import type { OriginLink } from './origin-link.js';

/** A window of 8 MiB that is used up from its half on lasts longer at any rate of a reader. */
const POLL_MS = 5;
/** Fetches in the background that one blob has queued or in flight. */
const STREAMED_FLIGHTS_MAX = 8;

export interface UnaskedFetches {
  /** Whether there is space for more than reads ask for, and the source works. */
  takesMore(): boolean;
  /** Fetches missing chunks, at most as many as one request brings. */
  fetch(fetcher: Fetcher, range: ChunkRange, urgency: Urgency): void;
}

export class Readahead {
  readonly #store: ChunkStore;
  readonly #flights: FlightMap;
  readonly #link: OriginLink;
  readonly #unasked: UnaskedFetches;
  readonly #windows: FetchWindows;
  /** The reader that missed last. */
  #fetcher: Fetcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The chunk at which the stream of the rest continues. */
  #streamedTo = 0;

  constructor(store: ChunkStore, flights: FlightMap, link: OriginLink, unasked: UnaskedFetches) {
    this.#store = store;
    this.#flights = flights;
    this.#link = link;
    this.#unasked = unasked;
    this.#windows = new FetchWindows(store);
  }

  /** A read misses chunks [first, end), whose flights have not started. */
  missed(fetcher: Fetcher, { first, end }: ChunkRange, isMounted: boolean): void {
    // Opening an image reads the ends of its layers, and nothing between them.
    if (!this.#store.hasSpace || !(isMounted || this.#windows.isSmall)) return;
    const last = this.#flights.at(end - 1);
    const { together, ahead } = this.#windows.missed(first, end, this.#link.granuleBytes);
    if (last !== undefined) this.#flights.grow(last, together.first, together.end);
    this.#fetcher = fetcher;
    this.#fetchAhead(fetcher, ahead);
    this.#poll();
  }

  /** Whether a sweep keeps the link busy. */
  get isSweeping(): boolean {
    return this.#windows.isSweeping;
  }

  /** Chunks that such sweeps have passed. */
  get sweptCount(): number {
    return this.#windows.sweptCount;
  }

  /** Follows the sweeps. */
  advance(): void {
    const fetcher = this.#fetcher;
    if (fetcher === undefined) return;
    for (const range of this.#windows.advance()) this.#fetchAhead(fetcher, range);
    this.#poll();
  }

  /**
   * Fetches some of the blob's missing chunks in the background, unless enough of such fetches are queued. Evicts nothing of open
   * blobs.
   */
  stream(fetcher: Fetcher): void {
    const { chunks } = this.#store;
    let queued = 0;
    let inFlight = 0;
    for (const flight of this.#flights.all()) {
      inFlight += flight.chunks;
      if (flight.urgency === 'background') queued++;
    }
    if (queued >= STREAMED_FLIGHTS_MAX) return;
    let free = Math.floor(this.#store.freeBytes / CHUNK_BYTES) - inFlight;
    for (let looked = 0; looked < chunks && queued < STREAMED_FLIGHTS_MAX; ) {
      if (!this.#unasked.takesMore()) return;
      const first = this.#streamedTo;
      const runEnd = this.#flights.runEnd(first, chunks);
      free -= runEnd - first;
      if (free < 0) return;
      if (runEnd > first) {
        this.#unasked.fetch(fetcher, { first, end: runEnd }, 'background');
        queued++;
      }
      const end = Math.max(runEnd, first + 1);
      looked += end - first;
      this.#streamedTo = end === chunks ? 0 : end;
    }
  }

  /** The reader is gone. */
  dismiss(fetcher: Fetcher): void {
    if (this.#fetcher !== fetcher) return;
    this.#fetcher = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Prefetches a window, or as much of it as does not evict what it brings. */
  #fetchAhead(fetcher: Fetcher, { first, end }: ChunkRange): void {
    const chunksMax = Math.floor(this.#store.unaskedBytesMax / 2 / CHUNK_BYTES);
    const endMax = Math.min(end, first + chunksMax);
    for (let chunk = first; chunk < endMax; ) {
      if (!this.#unasked.takesMore()) return;
      const runEnd = this.#flights.runEnd(chunk, endMax);
      if (runEnd > chunk) this.#unasked.fetch(fetcher, { first: chunk, end: runEnd }, 'prefetch');
      chunk = Math.max(runEnd, chunk + 1);
    }
  }

  #poll(): void {
    if (this.#timer !== undefined || !this.#windows.isActive) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.advance();
    }, POLL_MS).unref();
  }
}

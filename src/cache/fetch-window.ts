/**
 * Which chunks of one blob to fetch besides those that a read misses. Pure: it is told the misses, and looks at the bits.
 *
 *   lone miss         one granule from the miss on, in the request of the miss, and up to BEFORE_SHARE of one before it: files
 *                     that belong together are read in either direction. The missed chunk waits for that part of the wire
 *   sweep             a miss that follows a granule which was read: a window of two granules behind it, in separate requests
 *   ... is used up    the window doubles, up to WINDOW_BYTES_MAX, before the reader has reached its end
 *   ... is not        the window halves, down to none
 *   small blob        all of it, in the request of the first miss
 *
 * Several streams of one blob have their own windows; the longest unused one makes room for another. The first misses of
 * a sweep are reported; later reads find their chunks cached, so the windows look at the bits that readers clear
 * (chunk-set.ts): the caller calls advance() while isActive.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';

const WINDOW_BYTES_MAX = 8 << 20;
const WINDOW_CHUNKS_MAX = WINDOW_BYTES_MAX / CHUNK_BYTES;
const STREAMS_MAX = 16;
/** A blob of so many bytes is fetched whole. */
const SMALL_BYTES = 512 * 1024;
/** Measured: with none a start needs a quarter more requests, with more it waits longer for each. */
const BEFORE_SHARE = 3 / 8;
/** A sweep reads at least this share of what it passes: files have holes and neighbours. */
const SWEEP_SHARE = 0.75;
/** Below this share a window shrinks. */
const WASTE_SHARE = 0.5;
/** A miss so far beyond the end of a stream still belongs to it: other layers hold the blocks between. */
const GAP_CHUNKS_MAX = 4;
/** A stream that was not used for so long fetches no more. */
const IDLE_MS = 2_000;
/** A reader that uses nothing of its widest window for so long has ended, or waits for something else. */
const SWEEP_PAUSE_MS = 500;

/** Chunks [first, end). */
export interface ChunkRange {
  readonly first: number;
  readonly end: number;
}

/** The blob's chunks, as far as windows need them. */
export interface ChunkView {
  readonly chunks: number;
  /** Whether the chunk was read since it was fetched. */
  isRead(chunk: number): boolean;
}

export interface FetchPlan {
  /** The range of the miss's own request. */
  readonly together: ChunkRange;
  /** The range to fetch after that, in separate requests. */
  readonly ahead: ChunkRange;
}

interface Stream {
  /** Where its last window, or the granule before there was one, begins. */
  mark: number;
  /** The end of what was ordered. */
  ahead: number;
  /** In chunks; 0 after a lone miss. */
  window: number;
  usedMs: number;
  /** The furthest chunk that was seen as read. */
  furthest: number;
}

export class FetchWindows {
  readonly #view: ChunkView;
  readonly #now: () => number;
  /** Whether the blob is fetched whole. */
  readonly isSmall: boolean;
  /** Chunks that sweeps with the widest window have passed. */
  sweptCount = 0;
  /** The least recently used first. */
  #streams: Stream[] = [];

  constructor(view: ChunkView, now: () => number = () => performance.now()) {
    this.#view = view;
    this.#now = now;
    this.isSmall = view.chunks * CHUNK_BYTES <= SMALL_BYTES;
  }

  /** Whether advance() may have something to fetch. */
  get isActive(): boolean {
    const sinceMs = this.#now() - IDLE_MS;
    return this.#streams.some(({ window, usedMs }) => window > 0 && usedMs > sinceMs);
  }

  /** Whether a sweep fills its widest window now. It keeps the link busy by itself. */
  get isSweeping(): boolean {
    const sinceMs = this.#now() - SWEEP_PAUSE_MS;
    return this.#streams.some(
      ({ window, usedMs }) => window === WINDOW_CHUNKS_MAX && usedMs > sinceMs,
    );
  }

  /** A read misses chunks [first, end). @param granuleBytes - Of the link that they come over. */
  missed(first: number, end: number, granuleBytes: number): FetchPlan {
    const { chunks } = this.#view;
    if (this.isSmall) {
      return { together: { first: 0, end: chunks }, ahead: { first: chunks, end: chunks } };
    }
    const granule = Math.ceil(granuleBytes / CHUNK_BYTES);
    const stream = this.#streamAt(first);
    const isSweep = stream.ahead > stream.mark && this.#share(stream.mark, first) >= SWEEP_SHARE;
    stream.window = isSweep ? Math.min(Math.max(stream.window, granule) * 2, WINDOW_CHUNKS_MAX) : 0;
    stream.mark = first;
    stream.furthest = first;
    const together = Math.min(Math.max(end, first + granule), chunks);
    stream.ahead = Math.min(together + stream.window, chunks);
    const before = Math.max(0, first - Math.floor(granule * BEFORE_SHARE));
    return {
      together: { first: before, end: together },
      ahead: { first: together, end: stream.ahead },
    };
  }

  /** The next ranges of sweeps whose readers have used up enough of their windows. */
  advance(): ChunkRange[] {
    const found: ChunkRange[] = [];
    for (const stream of this.#streams) {
      const range = stream.window > 0 ? this.#advance(stream) : undefined;
      if (range !== undefined) found.push(range);
    }
    return found;
  }

  #advance(stream: Stream): ChunkRange | undefined {
    const read = this.#furthestRead(stream);
    if (read <= stream.furthest) return undefined;
    stream.furthest = read;
    stream.usedMs = this.#now();
    if (stream.ahead - read > stream.window / 2) return undefined;
    const share = this.#share(stream.mark, read + 1);
    if (share >= SWEEP_SHARE) stream.window = Math.min(stream.window * 2, WINDOW_CHUNKS_MAX);
    else if (share < WASTE_SHARE) stream.window = Math.floor(stream.window / 2);
    if (stream.window === WINDOW_CHUNKS_MAX) this.sweptCount += read - stream.mark;
    stream.mark = read;
    const first = stream.ahead;
    stream.ahead = Math.min(Math.max(read + 1 + stream.window, first), this.#view.chunks);
    return stream.ahead > first ? { first, end: stream.ahead } : undefined;
  }

  #furthestRead({ furthest, ahead }: Stream): number {
    for (let chunk = ahead - 1; chunk > furthest; chunk--) {
      if (this.#view.isRead(chunk)) return chunk;
    }
    return furthest;
  }

  /** The share of [first, end) that was read. */
  #share(first: number, end: number): number {
    if (end <= first) return 0;
    let read = 0;
    for (let chunk = first; chunk < end; chunk++) if (this.#view.isRead(chunk)) read++;
    return read / (end - first);
  }

  /** The stream that a miss of the chunk belongs to, as the most recently used one. */
  #streamAt(chunk: number): Stream {
    const at = this.#streams.findIndex(
      ({ mark, ahead }) => chunk > mark && chunk <= ahead + GAP_CHUNKS_MAX,
    );
    const found = at === -1 ? undefined : this.#streams.splice(at, 1)[0];
    if (this.#streams.length === STREAMS_MAX) this.#streams.shift();
    const stream = found ?? { mark: chunk, ahead: chunk, window: 0, usedMs: 0, furthest: chunk };
    stream.usedMs = this.#now();
    this.#streams.push(stream);
    return stream;
  }
}

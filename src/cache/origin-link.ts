/**
 * Measures the link to one origin: its rate, and the time that a request waits for its first byte.
 *
 *   granuleBytes    how much one miss fetches: about what the link carries while the read waits for the first byte anyway
 *   aheadBytesMax   limit of the bytes in flight that no read waits for. A request on a connection that is
 *                   new, or was idle, takes about eight round trips until it is as fast as the link (TCP's slow start): so
 *                   eight bandwidth-delay products keep a far link busy, and delay the next demand by no more than that
 *   largeRequestsMax   how many large answers side by side a near link carries
 *   backgroundBytesMax   the same where no read is known to come. Each demand waits behind these bytes, and a stream of the
 *                   background keeps its connections at full speed by itself
 *
 * The rate is the largest seen in windows of WINDOW_MS, the wait is the least seen: requests that wait for each other, for a
 * reader or for this program show less than the link can do. A window begins with bytes: the wait for them, a login and a
 * redirect included, says nothing of the rate. Both drop samples older than two epochs, so that a link that
 * becomes ten times slower is known after a few seconds.
 */

const WINDOW_MS = 50;
/** Time in which bytes are in flight. */
const EPOCH_MS = 1_500;
const KIB = 1024;

/** Measured best on links from 100 Mbit/s and 20 ms to 1 Gbit/s and 2 ms, on sparse and on dense reads. */
const GRANULE_BYTES_MIN = 512 * KIB;
const GRANULE_BYTES_MAX = 1024 * KIB;
/** On a link so slow that even the smallest granule takes longer, the granule shrinks. */
const GRANULE_MS_MAX = 250;
const GRANULE_BYTES_FLOOR = 64 * KIB;
const AHEAD_BYTES_MIN = 1024 * KIB;
/** Bounds the memory of readahead for each origin. */
const AHEAD_BYTES_MAX = 16 << 20;
const AHEAD_ROUND_TRIPS = 8;
/** Measured: a start that reads most of its image ends a tenth sooner than with as much as ahead. */
const BACKGROUND_SHARE = 1 / 4;
/** On a near link, this program's own pauses are longer than its round trips. */
const AHEAD_MS_MIN = 40;

/**
 * Large answers that come at once overflow the queues of a near link. The last packets of an answer that are lost so are sent
 * again after 200 ms (RFC 6298, Linux's TCP_RTO_MIN). Measured on 1 Gbit/s, 2 ms and a queue of one round trip: a sweep of 65 MB/s
 * with two requests of 1 MiB side by side, 35 to 45 MB/s with three to five.
 */
const LARGE_REQUESTS_MIN = 2;
const MS_PER_LARGE_REQUEST = 4;

/** A value that is kept for one or two epochs. */
class Extreme {
  readonly #better: (a: number, b: number) => number;
  #current: number | undefined;
  #previous: number | undefined;

  constructor(better: (a: number, b: number) => number) {
    this.#better = better;
  }

  get value(): number | undefined {
    if (this.#current === undefined || this.#previous === undefined) {
      return this.#current ?? this.#previous;
    }
    return this.#better(this.#current, this.#previous);
  }

  take(sample: number): void {
    this.#current = this.#current === undefined ? sample : this.#better(this.#current, sample);
  }

  nextEpoch(): void {
    if (this.#current === undefined) return;
    this.#previous = this.#current;
    this.#current = undefined;
  }
}

/** One request in flight. */
export interface Transfer {
  /** So many more bytes have come. */
  received(bytes: number): void;
  /** Idempotent. */
  ended(): void;
}

export class OriginLink {
  readonly #now: () => number;
  readonly #bytesPerMs = new Extreme(Math.max);
  readonly #firstByteMs = new Extreme(Math.min);
  #inFlightBytes = 0;
  #inFlight = 0;
  #receivedMs = 0;
  /** Undefined until bytes come. */
  #windowStartMs: number | undefined;
  #windowBytes = 0;
  #epochMs = 0;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Bytes that were requested and have not come. */
  get inFlightBytes(): number {
    return this.#inFlightBytes;
  }

  /** Requests whose answers have not ended. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** For how long no byte has come, in ms. */
  get quietMs(): number {
    return this.#now() - this.#receivedMs;
  }

  /** The shortest wait for a first byte; undefined before it is measured. */
  get firstByteMs(): number | undefined {
    return this.#firstByteMs.value;
  }

  get granuleBytes(): number {
    const rate = this.#bytesPerMs.value;
    if (rate === undefined) return GRANULE_BYTES_MIN;
    const wait = clamp(this.#productBytes, GRANULE_BYTES_MIN, GRANULE_BYTES_MAX);
    return Math.max(GRANULE_BYTES_FLOOR, Math.min(wait, rate * GRANULE_MS_MAX));
  }

  get aheadBytesMax(): number {
    const rate = this.#bytesPerMs.value ?? 0;
    const ms = Math.max(AHEAD_ROUND_TRIPS * (this.#firstByteMs.value ?? 0), AHEAD_MS_MIN);
    return clamp(rate * ms, AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
  }

  get backgroundBytesMax(): number {
    return this.aheadBytesMax * BACKGROUND_SHARE;
  }

  /** How many requests the link carries side by side, if their answers are large. */
  get largeRequestsMax(): number {
    return Math.max(LARGE_REQUESTS_MIN, (this.#firstByteMs.value ?? 0) / MS_PER_LARGE_REQUEST);
  }

  /** @param bytes - How many are requested. */
  started(bytes: number): Transfer {
    const startedMs = this.#now();
    if (this.#inFlight++ === 0) this.#openWindow(undefined);
    this.#inFlightBytes += bytes;
    let left = bytes;
    let isFirst = true;
    let isOver = false;
    return {
      received: (count) => {
        if (isOver) return;
        const nowMs = this.#now();
        if (isFirst) this.#firstByteMs.take(nowMs - startedMs);
        isFirst = false;
        this.#receivedMs = nowMs;
        const counted = Math.min(left, count);
        left -= counted;
        this.#inFlightBytes -= counted;
        this.#received(counted, nowMs);
      },
      ended: () => {
        if (isOver) return;
        isOver = true;
        this.#inFlightBytes -= left;
        this.#inFlight--;
      },
    };
  }

  /** The bandwidth-delay product; 0 before both are measured. */
  get #productBytes(): number {
    return (this.#bytesPerMs.value ?? 0) * (this.#firstByteMs.value ?? 0);
  }

  #openWindow(nowMs: number | undefined): void {
    this.#windowStartMs = nowMs;
    this.#windowBytes = 0;
  }

  #received(bytes: number, nowMs: number): void {
    if (this.#windowStartMs === undefined) {
      this.#openWindow(nowMs);
      return;
    }
    this.#windowBytes += bytes;
    const ms = nowMs - this.#windowStartMs;
    if (ms < WINDOW_MS) return;
    this.#bytesPerMs.take(this.#windowBytes / ms);
    this.#epochMs += ms;
    if (this.#epochMs >= EPOCH_MS) {
      this.#bytesPerMs.nextEpoch();
      this.#firstByteMs.nextEpoch();
      this.#epochMs = 0;
    }
    this.#openWindow(nowMs);
  }
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(Math.max(value, min), max);
}

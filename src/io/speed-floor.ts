/**
 * Leaves connections that are too slow to be worth waiting for: below FLOOR_BYTES_PER_S over a window of WINDOW_MS.
 *
 * One SpeedFloor sees the attempts at one thing in turn. Where a new connection is as slow as the one that was left for
 * it, the path or the registry is slow: it is kept, for KEPT_MS, so that the bytes come at all. Where a new attempt begins
 * at the first byte again, it is kept for good.
 */
import { ErrorCodes, ObdError } from '../errors.js';

const FLOOR_BYTES_PER_S = 16 << 10;
const WINDOW_MS = 10_000;
const KEPT_MS = 60_000;
/** "As slow" means at least this share of the speed of the connection that was left. */
const AS_SLOW_SHARE = 0.5;

/** A connection was left, which says nothing of other connections to the same registry. */
export class TooSlow extends ObdError {}

/** A connection's answer, as far as its speed is judged. */
export interface WatchedAnswer {
  /** For messages: "Cannot read X". */
  readonly doing: string;
  readonly url: URL;
  pieces(): AsyncIterable<Uint8Array>;
  /** Ends the connection; pieces() then throws `error`. */
  cutOff(error: ObdError): void;
}

export class SpeedFloor {
  readonly #keptMs: number;
  #left: { readonly bytesPerS: number; readonly atMs: number } | undefined;

  /** @param keptMs - How long a connection is kept that is as slow as the one before. */
  constructor(keptMs = KEPT_MS) {
    this.#keptMs = keptMs;
  }

  /**
   * The pieces of the answer's body.
   * @throws {ObdError} `Unavailable` when the connection is left; what pieces() throws.
   */
  async *watch(response: WatchedAnswer): AsyncGenerator<Uint8Array, void, undefined> {
    let bytes = 0;
    let readerMs = 0;
    const timer = setInterval(() => {
      // A window in which mostly the reader was slow says nothing of the connection.
      const isJudged = readerMs < WINDOW_MS / 2;
      if (isJudged) this.#judge(response, (bytes * 1000) / (WINDOW_MS - readerMs));
      bytes = 0;
      readerMs = 0;
    }, WINDOW_MS);
    try {
      for await (const piece of response.pieces()) {
        bytes += piece.length;
        const yieldedMs = performance.now();
        yield piece;
        readerMs += performance.now() - yieldedMs;
      }
    } finally {
      clearInterval(timer);
    }
  }

  #judge(response: WatchedAnswer, bytesPerS: number): void {
    const nowMs = performance.now();
    if (bytesPerS >= FLOOR_BYTES_PER_S) {
      this.#left = undefined;
      return;
    }
    const left = this.#left;
    const isNew = left === undefined || nowMs - left.atMs >= this.#keptMs;
    if (!isNew && bytesPerS >= left.bytesPerS * AS_SLOW_SHARE) return;
    this.#left = { bytesPerS, atMs: nowMs };
    const { doing, url } = response;
    const problem = `sends ${Math.round(bytesPerS)} bytes a second; asking for the rest on a new connection`;
    response.cutOff(new TooSlow(ErrorCodes.Unavailable, `${doing}: ${url.host} ${problem}`));
  }
}

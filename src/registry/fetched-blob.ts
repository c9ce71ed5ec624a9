/**
 * A blob of a registry whose parts are fetched when they are read, and kept in memory: for commands that read a little of an
 * image once, without a daemon and its cache.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { RangeFill } from '../io/ranged-source.js';
import type { RemoteBlobRanges } from './blob-ranges.js';
import { DEFAULT_LIMITS } from './registry-limits.js';
import { RetryBudget } from './retry.js';

/** One request brings at least so much: neighbours are mostly read next. */
const PIECE_BYTES = 256 << 10;
/** Pieces kept; the oldest one is evicted then. */
const PIECES_MAX = 1024;

export class FetchedBlob implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #ranges: RemoteBlobRanges;
  readonly #signal: AbortSignal;
  readonly #pieces = new Map<number, Uint8Array>();

  constructor(ranges: RemoteBlobRanges, signal: AbortSignal) {
    this.label = ranges.label;
    this.sizeBytes = ranges.sizeBytes;
    this.#ranges = ranges;
    this.#signal = signal;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    if (!(offset >= 0 && end <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${end}) is outside ${this.label}`);
    }
    for (let at = offset; at < end; ) {
      const number = Math.floor(at / PIECE_BYTES);
      const piece = this.#pieces.get(number);
      if (piece === undefined) return false;
      const from = at - number * PIECE_BYTES;
      const part = piece.subarray(from, Math.min(piece.length, from + end - at));
      target.set(part, at - offset);
      at += part.length;
    }
    return true;
  }

  async load(offset: number, length: number): Promise<void> {
    const last = Math.floor((offset + length - 1) / PIECE_BYTES);
    for (let number = Math.floor(offset / PIECE_BYTES); number <= last; number++) {
      if (this.#pieces.has(number)) continue;
      let next = number + 1;
      while (next <= last && !this.#pieces.has(next)) next++;
      await this.#fetch(number, next);
      number = next;
    }
  }

  invalidate(offset: number, length: number): boolean {
    this.#ranges.invalidated(offset, length);
    for (let at = Math.floor(offset / PIECE_BYTES); at * PIECE_BYTES < offset + length; at++) {
      this.#pieces.delete(at);
    }
    return true;
  }

  close(): void {
    this.#pieces.clear();
  }

  /** Fetches the pieces [first, end) by one request. */
  async #fetch(first: number, end: number): Promise<void> {
    const start = first * PIECE_BYTES;
    const bytes = Buffer.alloc(Math.min(this.sizeBytes, end * PIECE_BYTES) - start);
    const fill = new RangeFill(bytes, start);
    const { attemptsMax, backoffMs, fetchDeadlineMs } = DEFAULT_LIMITS;
    const budget = new RetryBudget({ attemptsMax, backoffMs, deadlineMs: fetchDeadlineMs });
    for (let after: unknown; ; ) {
      try {
        await this.#attempt(fill, after);
        break;
      } catch (error) {
        await budget.spend(error, this.#signal);
        after = error;
      }
    }
    for (let number = first; number < end; number++) {
      const from = (number - first) * PIECE_BYTES;
      this.#keep(number, bytes.subarray(from, from + PIECE_BYTES));
    }
  }

  async #attempt(fill: RangeFill, after: unknown): Promise<void> {
    const whole = await this.#ranges.attempt(fill, { signal: this.#signal, after });
    if (whole === undefined) return;
    // A server that ignores ranges: what is before the range passes by.
    let at = 0;
    const { bytes, offset } = fill;
    for await (const piece of whole.pieces(fill.floor)) {
      const from = Math.max(0, offset - at);
      const wanted = piece.subarray(from, Math.max(from, offset + bytes.length - at));
      bytes.set(wanted, Math.max(0, at - offset));
      at += piece.length;
      if (at >= offset + bytes.length) break;
    }
    whole.cutOff();
    if (at >= offset + bytes.length) return;
    const message = `Cannot read ${this.label}: ${whole.host} sent ${at} of ${this.sizeBytes} bytes`;
    throw new ObdError(ErrorCodes.Unavailable, message);
  }

  #keep(number: number, piece: Uint8Array): void {
    this.#pieces.set(number, piece);
    const [oldest] = this.#pieces.keys();
    if (this.#pieces.size > PIECES_MAX && oldest !== undefined) this.#pieces.delete(oldest);
  }
}

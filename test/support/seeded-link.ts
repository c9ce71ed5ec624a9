/**
 * A link that all blobs of a registry share: a rate, and a time until the first byte, both for the tests to change. Sources
 * are BlobDoubles, whose answers arrive over it piece by piece, in turns.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BlobDouble } from './blob-double.js';

const PIECE_BYTES = 16 * 1024;
/** A timer is no finer. */
const SLEEP_MS_MIN = 1;

export class SeededLink {
  bytesPerMs: number;
  firstByteMs: number;
  sentBytes = 0;
  requests = 0;
  parallelMax = 0;
  #parallel = 0;
  #freeAtMs = 0;

  constructor(bytesPerMs: number, firstByteMs: number) {
    this.bytesPerMs = bytesPerMs;
    this.firstByteMs = firstByteMs;
  }

  carry(source: BlobDouble): BlobDouble {
    source.arriving = async ({ length }, arrived, signal) => {
      this.requests++;
      this.parallelMax = Math.max(this.parallelMax, ++this.#parallel);
      try {
        await sleep(this.firstByteMs);
        for (let left = length; left > 0; ) {
          const piece = Math.min(left, PIECE_BYTES);
          signal?.throwIfAborted();
          await this.#turn(piece);
          this.sentBytes += piece;
          left -= piece;
          arrived(piece);
        }
      } finally {
        this.#parallel--;
      }
    };
    return source;
  }

  /** Bytes of no blob that share the link. @throws the reason of `signal`. */
  async *stream(
    bytes: Uint8Array,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    await sleep(this.firstByteMs);
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      signal?.throwIfAborted();
      const piece = bytes.subarray(at, at + PIECE_BYTES);
      await this.#turn(piece.length);
      this.sentBytes += piece.length;
      yield piece;
    }
  }

  async #turn(bytes: number): Promise<void> {
    const nowMs = performance.now();
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs) + bytes / this.bytesPerMs;
    const waitMs = this.#freeAtMs - nowMs;
    if (waitMs >= SLEEP_MS_MIN) await sleep(waitMs);
  }
}

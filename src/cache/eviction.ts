/**
 * Chooses the chunks of open blobs to evict: the clock algorithm, also called second chance.
 *
 * A hand goes round the chunks of each blob. A stored chunk that was used since the hand last passed is spared once; any
 * other is a victim. A round begins ROUND_MS after the last one ended at the earliest, so that even in a
 * very small cache a fetched chunk stays until its reader has read it.
 *
 * Opening chunks (chunk-set.ts) are victims only when the cache holds no other: without them, no image opens while its
 * registry is away, and the device of a restarted daemon needs its image.
 *
 * Cost: one look at each chunk a round.
 */
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { ChunkSet } from './chunk-set.js';

const ROUND_MS = 1000;
/** Chunk 0 stays: a blob that is sent whole is compared with it (whole-stream.ts). */
const FIRST = 1;

/** Where the hand of one blob is. */
export class ClockHand {
  readonly #stored: ChunkSet;
  #chunk = FIRST;
  /** On the clock of performance.now(). */
  #nextRoundMs = 0;

  constructor(stored: ChunkSet) {
    this.#stored = stored;
  }

  /**
   * Victims of at least `bytes` in all, or as many as the rest of this round has. Ascending.
   * @param takesOpening - Whether opening chunks may be among them.
   */
  victims(bytes: number, takesOpening: boolean): number[] {
    const stored = this.#stored;
    const found: number[] = [];
    const now = performance.now();
    if (stored.count === 0 || (this.#chunk === FIRST && now < this.#nextRoundMs)) return found;
    for (; this.#chunk < stored.chunks && found.length * CHUNK_BYTES < bytes; this.#chunk++) {
      if (!stored.has(this.#chunk)) continue;
      if (!takesOpening && stored.isOpening(this.#chunk)) continue;
      if (!stored.takeUsed(this.#chunk)) found.push(this.#chunk);
    }
    if (this.#chunk >= stored.chunks) {
      this.#chunk = FIRST;
      this.#nextRoundMs = now + ROUND_MS;
    }
    return found;
  }
}

/**
 * Judges what is fetched ahead of a start by what the start reads: advice that is wrong, or of another start, is set aside.
 *
 * A read that has to fetch by itself is a miss, and speaks against the advice; what was fetched ahead and is read speaks for
 * it. A miss brings half a mebibyte, so advice that saves less than half of that for each miss costs more than it gains:
 *
 *   balance = 1 + misses saved - misses, and BALANCE_MAX at most, so that a start which deviates late is seen soon
 *   below 2   a miss comes first: what is in flight of the advice is put off
 *   below 0   the advice is wrong. A fifth of what a prediction names may be, and its balance rises from the first reads on
 *
 * Advice whose bytes have all come, and whose balance was high once, is right: what the container reads later says nothing of it.
 */
import { ErrorCodes, ObdError } from '../errors.js';

const BALANCE_FIRST = 1;
const BALANCE_MAX = 8;
/** Below it, a miss goes first. */
const BALANCE_TRUSTED = 2;
/** Pages of a hot blob, and chunks of a load order, that are as much as half a miss brings. */
export const PAGES_PER_MISS = 64;
export const CHUNKS_PER_MISS = 4;
/** Such a share of the advice is enough, if that is less than BALANCE_MAX. */
const PROVED_SHARE = 1 / 2;
/** As long as a start is recorded at most. */
const START_MS_MAX = 60_000;

/** What is judged. */
export interface TriedAdvice {
  /** How many misses all of it saves. */
  readonly worth: number;
  /** How many misses it has saved. */
  saved(): number;
  /** Whether bytes of it still come. */
  isComing(): boolean;
}

export class AdviceTrial {
  readonly #advice: TriedAdvice;
  readonly #onRefuted: (why: ObdError) => void;
  readonly #endsMs = performance.now() + START_MS_MAX;
  #saved: number;
  #balance = BALANCE_FIRST;
  #wasHigh = false;
  #misses = 0;
  #verdict: 'right' | 'wrong' | undefined;

  /**
   * Begins when the image's reads do.
   *
   * @param onRefuted - Called at most once, behind the call of missed() that shows it.
   */
  constructor(advice: TriedAdvice, onRefuted: (why: ObdError) => void) {
    this.#advice = advice;
    this.#onRefuted = onRefuted;
    this.#saved = advice.saved();
  }

  get isRefuted(): boolean {
    return this.#verdict === 'wrong';
  }

  /** Whether it may well be wrong: a read that misses should wait for nothing of it. */
  get isDoubted(): boolean {
    return this.#verdict === undefined && this.#balance < BALANCE_TRUSTED;
  }

  /** A read has to fetch what was not fetched ahead of it. */
  missed(): void {
    if (this.#verdict !== undefined) return;
    const { worth } = this.#advice;
    const saved = this.#advice.saved();
    this.#balance = Math.min(BALANCE_MAX, this.#balance + saved - this.#saved);
    this.#saved = saved;
    this.#wasHigh ||= this.#balance >= Math.min(BALANCE_MAX, worth * PROVED_SHARE);
    const isOver = this.#wasHigh || performance.now() > this.#endsMs;
    if (isOver && !this.#advice.isComing()) {
      this.#verdict = 'right';
      return;
    }
    this.#misses++;
    this.#balance--;
    if (this.#balance >= 0) return;
    this.#verdict = 'wrong';
    const message = `The start reads other bytes than it names, or earlier than they come: ${this.#misses} reads had to fetch, and it has saved about ${Math.round(saved)} such reads`;
    // The caller is about to fetch: what ends now may be what it waits for.
    queueMicrotask(() => this.#onRefuted(new ObdError(ErrorCodes.FailedPrecondition, message)));
  }
}

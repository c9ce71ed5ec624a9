/**
 * How far the pages of a hot blob have come, and which of them reads have used: memory that all threads share.
 *
 * Slots arrive in their order, so a number says which are here. The thread that takes the stream wakes those that wait.
 */
const ENDED = 0;
const ARRIVED = 1;
/** Pages per second. */
const RATE = 2;
const READ = 3;
/** When slots have come last: ms of Date.now(), which all threads share, below 2^31. */
const ADVANCED = 4;
const HEADER_WORDS = 5;
const CLOCK_MASK = 0x7fffffff;

export class HotProgress {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #pages: number;

  /** @param memory - Of another thread's; a new one for a stream that begins. */
  constructor(pages: number, memory?: SharedArrayBuffer) {
    this.memory = memory ?? new SharedArrayBuffer(4 * (HEADER_WORDS + Math.ceil(pages / 32)));
    this.#words = new Int32Array(this.memory);
    this.#pages = pages;
    if (memory === undefined) Atomics.store(this.#words, ADVANCED, clockMs());
  }

  /** Whether no page comes any more. */
  get hasEnded(): boolean {
    return Atomics.load(this.#words, ENDED) === 1;
  }

  /** Whether it has ended before all pages came. */
  get hasFailed(): boolean {
    return this.hasEnded && this.arrived < this.#pages;
  }

  /** How many slots have come, from 0 on. */
  get arrived(): number {
    return Atomics.load(this.#words, ARRIVED);
  }

  /** How many pages reads have used. */
  get read(): number {
    return Atomics.load(this.#words, READ);
  }

  /** @param perSecond - The rate of pages so far. */
  advance(arrived: number, perSecond: number): void {
    Atomics.store(this.#words, RATE, Math.ceil(perSecond));
    Atomics.store(this.#words, ADVANCED, clockMs());
    Atomics.store(this.#words, ARRIVED, arrived);
    Atomics.notify(this.#words, ARRIVED);
  }

  end(): void {
    Atomics.store(this.#words, ENDED, 1);
    Atomics.notify(this.#words, ARRIVED);
  }

  /**
   * In how many ms the slot is likely to be here; Infinity if it does not come. A stream that has been silent for a while is
   * likely to stay so for as long: otherwise each read would wait for one that has stalled.
   */
  msUntil(slot: number): number {
    if (this.hasEnded) return Number.POSITIVE_INFINITY;
    const missing = slot + 1 - this.arrived;
    if (missing <= 0) return 0;
    const silentMs = (clockMs() - Atomics.load(this.#words, ADVANCED)) & CLOCK_MASK;
    return Math.max(silentMs, (missing * 1000) / Math.max(1, Atomics.load(this.#words, RATE)));
  }

  /** Resolves when slots have come, when no more come, or after `msMax`. */
  async next(arrived: number, msMax: number): Promise<void> {
    if (this.hasEnded) return;
    const { async, value } = Atomics.waitAsync(this.#words, ARRIVED, arrived, msMax);
    if (async) await value;
  }

  /** Notes that reads have used slots [first, end). */
  use(first: number, end: number): void {
    for (let slot = first; slot < end; slot++) {
      const word = HEADER_WORDS + (slot >>> 5);
      const bit = 1 << (slot & 31);
      if ((Atomics.load(this.#words, word) & bit) !== 0) continue;
      if ((Atomics.or(this.#words, word, bit) & bit) === 0) Atomics.add(this.#words, READ, 1);
    }
  }
}

function clockMs(): number {
  return Date.now() % 2 ** 31;
}

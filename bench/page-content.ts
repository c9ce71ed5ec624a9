/**
 * Bytes as in images, without an image: runs of pages of one kind, some of which compress to a fifth and some not at
 * all. Seeded, so that two runs measure the same thing.
 */

export const PAGE_BYTES = 4096;
const PHRASES = 256;
const SKEW_STEPS = 4096;

export class PageContent {
  #state: number;
  /** Numbers below PHRASES, small ones more often, like words in a language. */
  readonly #skewed: Uint8Array;
  readonly #words: readonly Buffer[];
  readonly #instructions: readonly Buffer[];
  #kind = 0;
  #pagesLeft = 0;

  constructor(seed: number) {
    this.#state = seed;
    const skewedAt = (_: unknown, i: number) => Math.floor(PHRASES ** (i / SKEW_STEPS)) - 1;
    this.#skewed = Uint8Array.from({ length: SKEW_STEPS }, skewedAt);
    this.#words = Array.from({ length: PHRASES }, () => {
      const letters = this.random(2 ** 32).toString(36) + this.random(2 ** 32).toString(36);
      return Buffer.from(`${letters.slice(0, 2 + this.random(10))} `);
    });
    this.#instructions = Array.from({ length: PHRASES }, () => {
      const bytes = Array.from({ length: 4 + this.random(20) }, () => this.random(256));
      return Buffer.from(bytes);
    });
  }

  /** A number from 0 to `below` - 1. */
  random(below: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * below);
  }

  #pick(phrases: readonly Buffer[]): Buffer {
    return phrases[this.#skewed[this.random(SKEW_STEPS)]!]!;
  }

  /** @param target - Whole pages. */
  fill(target: Buffer): void {
    for (let at = 0; at < target.length; at += PAGE_BYTES) {
      if (this.#pagesLeft === 0) {
        // A file: many small ones, few large ones.
        this.#kind = this.random(100);
        this.#pagesLeft = 1 + this.#skewed[this.random(SKEW_STEPS)]!;
      }
      this.#pagesLeft--;
      this.#fillPage(target.subarray(at, at + PAGE_BYTES));
    }
  }

  #fillPage(page: Buffer): void {
    const kind = this.#kind;
    if (kind < 15) {
      // Compressed already: archives, pictures.
      for (let i = 0; i < page.length; i += 4) page.writeInt32LE(this.random(2 ** 32) | 0, i);
    } else if (kind < 55) {
      // Machine code: the same instructions, with different operands.
      for (let i = 0; i < page.length; ) {
        i += this.#pick(this.#instructions).copy(page, i);
        if (i < page.length) page[i++] = this.random(256);
      }
    } else if (kind < 90) {
      // Text: the same words.
      for (let i = 0; i < page.length; ) i += this.#pick(this.#words).copy(page, i);
    } else {
      // Tables: mostly zeroes.
      page.fill(0);
      for (let i = 0; i < page.length; i += 16) page.writeUInt16LE(this.random(4096), i);
    }
  }
}

/**
 * A layer's file above its ZFile: pages of a hot blob come from there, all others from the ZFile.
 *
 * A read waits for pages that the stream is about to bring, if that is sooner than a fetch of their own. Other missing pages come
 * from the layer's blob, as if there were no hot blob; so a hot blob costs time at most.
 */
import type { RandomAccessFile, StoredRange } from '../io/random-access-file.js';
import { type HotPages, type HotRuns, PAGE_BYTES, runAt } from './hot-pages.js';

/** Longer than most fetches of a miss take; a link that is slower than that has a stream that is slower, too. */
const WAIT_MS_MAX = 250;

/** A part of a range: pages of one run, or what is between two runs. */
interface Part {
  /** In bytes of the layer. */
  readonly offset: number;
  readonly length: number;
  /** Where the part begins among the hot pages. Undefined for a part of no run. */
  readonly slot: number | undefined;
}

export class HotFile implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #inner: RandomAccessFile;
  readonly #pages: HotPages;
  readonly #runs: HotRuns;

  constructor(inner: RandomAccessFile, pages: HotPages, runs: HotRuns) {
    this.label = inner.label;
    this.sizeBytes = inner.sizeBytes;
    this.#inner = inner;
    this.#pages = pages;
    this.#runs = runs;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    for (let at = offset; at < end; ) {
      const i = this.#runAt(at);
      const to = Math.min(end, this.#endOf(i, at));
      const part = to - at === target.length ? target : target.subarray(at - offset, to - offset);
      if (!(this.#isWithin(i, at) && this.#tryHot(part, i, at)) && !this.#inner.tryRead(part, at)) {
        return false;
      }
      at = to;
    }
    return true;
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    await Promise.all(this.#parts(offset, length).map((part) => this.#load(part, deadlineMs)));
  }

  /** The ranges of the layer's blob. */
  storedRanges(offset: number, length: number): readonly StoredRange[] {
    return this.#inner.storedRanges?.(offset, length) ?? [];
  }

  invalidate(offset: number, length: number): boolean {
    return this.#inner.invalidate(offset, length);
  }

  close(): void {
    this.#inner.close();
  }

  #tryHot(target: Uint8Array, i: number, at: number): boolean {
    const into = at - this.#runs.leaves[i]! * PAGE_BYTES;
    const page = Math.floor(into / PAGE_BYTES);
    return this.#pages.tryRead(target, this.#runs.slots[i]! + page, into - page * PAGE_BYTES);
  }

  async #load({ offset, length, slot }: Part, deadlineMs: number | undefined): Promise<void> {
    if (slot !== undefined && (await this.#comes(slot, length))) return;
    await this.#inner.load(offset, length, deadlineMs);
  }

  /** Whether the hot pages are in memory in the end. */
  async #comes(slot: number, length: number): Promise<boolean> {
    const { progress } = this.#pages;
    const end = slot + Math.ceil(length / PAGE_BYTES);
    const untilMs = performance.now() + WAIT_MS_MAX;
    for (;;) {
      if (this.#hasAll(slot, end)) break;
      const { arrived } = progress;
      const msMax = untilMs - performance.now();
      // The pages have come and gone, or never come.
      if (arrived >= end || msMax <= 0 || progress.msUntil(end - 1) > msMax) return false;
      await progress.next(arrived, msMax);
    }
    try {
      await this.#pages.load(slot, end - slot);
      return true;
    } catch {
      // Its file is gone, or evicted: the layer's blob has the pages, too.
      return false;
    }
  }

  #hasAll(slot: number, end: number): boolean {
    for (let each = slot; each < end; each++) if (!this.#pages.has(each)) return false;
    return true;
  }

  #parts(offset: number, length: number): Part[] {
    const parts: Part[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const i = this.#runAt(at);
      const to = Math.min(end, this.#endOf(i, at));
      // Pages are loaded whole.
      const page = Math.floor(at / PAGE_BYTES);
      const slot = this.#isWithin(i, at)
        ? this.#runs.slots[i]! + page - this.#runs.leaves[i]!
        : undefined;
      const from = slot === undefined ? at : page * PAGE_BYTES;
      parts.push({ offset: from, length: to - from, slot });
      at = to;
    }
    return parts;
  }

  /** The last run that begins at or before the byte; -1 if none does. */
  #runAt(at: number): number {
    return runAt(this.#runs, Math.floor(at / PAGE_BYTES));
  }

  #isWithin(i: number, at: number): boolean {
    return i >= 0 && at < (this.#runs.leaves[i]! + this.#runs.counts[i]!) * PAGE_BYTES;
  }

  /** Where what holds the byte ends: its run, or the gap before the next run. */
  #endOf(i: number, at: number): number {
    if (this.#isWithin(i, at)) return (this.#runs.leaves[i]! + this.#runs.counts[i]!) * PAGE_BYTES;
    const next = this.#runs.leaves[i + 1];
    return next === undefined ? this.sizeBytes : next * PAGE_BYTES;
  }
}

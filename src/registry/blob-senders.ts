/**
 * Which address of a registry sent which bytes of a blob, so that bytes that fail a check later lead back to their sender.
 * The newest answer for a range counts. Old answers are forgotten at RUNS_MAX: their bytes are then fetched once more
 * before their sender is known.
 */
import type { ObdError } from '../errors.js';
import type { HttpResponse } from './http-client.js';

const RUNS_MAX = 1024;

/** Bytes [from, end). */
interface Run {
  from: number;
  end: number;
  readonly askedOf: string;
}

export class BlobSenders {
  /** In the order of the answers. */
  readonly #runs: Run[] = [];
  /** The answer with the whole blob that is being read. */
  #whole: HttpResponse | undefined;

  /** @param askedOf - HttpResponse.askedOf */
  add(from: number, end: number, askedOf: string | undefined): void {
    if (askedOf === undefined) return;
    const last = this.#runs.at(-1);
    if (last?.askedOf === askedOf && from <= last.end && end >= last.from) {
      last.from = Math.min(last.from, from);
      last.end = Math.max(last.end, end);
      return;
    }
    if (this.#runs.length === RUNS_MAX) this.#runs.shift();
    this.#runs.push({ from, end, askedOf });
  }

  /** The sender of the newest answer with each byte of [from, end), as far as it is known. */
  of(from: number, end: number): ReadonlySet<string> {
    const senders = new Set<string>();
    let unknown = [{ from, end }];
    for (const run of this.#runs.toReversed()) {
      const left = unknown.flatMap((gap) => without(gap, run));
      const isSame = left.length === unknown.length && left.every((gap, i) => gap === unknown[i]);
      if (!isSame) senders.add(run.askedOf);
      unknown = left;
      if (unknown.length === 0) break;
    }
    return senders;
  }

  /** Yields the pieces of an answer with the whole blob. */
  async *watchWhole(
    response: HttpResponse,
    pieces: AsyncIterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    this.#whole = response;
    try {
      yield* pieces;
    } finally {
      if (this.#whole === response) this.#whole = undefined;
    }
  }

  /** Ends the answer with the whole blob that comes from this address, if there is one. */
  endWhole(askedOf: string, error: ObdError): void {
    if (this.#whole?.askedOf === askedOf) this.#whole.cutOff(error);
  }
}

/** The parts of a gap that a run does not cover; the same object where they do not meet. */
function without<T extends { readonly from: number; readonly end: number }>(
  gap: T,
  run: Run,
): (T | { readonly from: number; readonly end: number })[] {
  if (run.end <= gap.from || run.from >= gap.end) return [gap];
  const before = { from: gap.from, end: run.from };
  const after = { from: run.end, end: gap.end };
  return [before, after].filter((part) => part.from < part.end);
}

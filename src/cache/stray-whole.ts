/**
 * Decides whether a whole blob that was sent in place of a range is taken. A server that has answered with ranges of this
 * blob may send it whole once by mistake, and one range is worth more than a gigabyte nobody asked for: it is asked once
 * more, after a pause. If it sends the blob whole again, that is what it does now.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { BlobRanges, WholeBlob } from '../registry/blob-ranges.js';

export class StrayWhole {
  #hasRanges = false;
  /** When the first whole blob since the last range was refused. */
  #refusedMs: number | undefined;

  /** It has answered with a range. */
  ranged(): void {
    this.#hasRanges = true;
    this.#refusedMs = undefined;
  }

  /**
   * @param startedMs - When it was asked: what was under way together is refused together.
   * @returns Why it is not taken; undefined if it is.
   */
  errorOf({ host }: WholeBlob, ranges: BlobRanges, startedMs: number): ObdError | undefined {
    if (!this.#hasRanges) return undefined;
    if (this.#refusedMs !== undefined && startedMs >= this.#refusedMs) return undefined;
    this.#refusedMs ??= performance.now();
    const message = `Cannot read ${ranges.label}: ${host} sent all of it in place of a range; asking once more`;
    return new ObdError(ErrorCodes.Unavailable, message, { digest: ranges.digest });
  }
}

/**
 * Decides whether to accept a whole blob that was sent in place of a range. A server that has answered with ranges of
 * this blob may send it whole once by mistake, and a gigabyte that no read requested is expensive: the range is
 * requested once more, after a pause. If the server sends the blob whole again, it is accepted.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { WholeAnswer } from '../io/ranged-source.js';
import type { BlobSource } from './blob-source.js';

export class StrayWhole {
  #hasRanges = false;
  /** When the first whole blob since the last range was refused. */
  #refusedMs: number | undefined;

  /** The server has answered with a range. */
  ranged(): void {
    this.#hasRanges = true;
    this.#refusedMs = undefined;
  }

  /**
   * @param startedMs - When the request began: whole blobs in flight at the first refusal are refused too.
   * @returns Why it is refused; undefined if it is accepted.
   */
  errorOf({ host }: WholeAnswer, source: BlobSource, startedMs: number): ObdError | undefined {
    if (!this.#hasRanges) return undefined;
    if (this.#refusedMs !== undefined && startedMs >= this.#refusedMs) return undefined;
    this.#refusedMs ??= performance.now();
    const message = `Cannot read ${source.label}: ${host} sent all of it in place of a range; asking once more`;
    return new ObdError(ErrorCodes.Unavailable, message, { digest: source.key.digest });
  }
}

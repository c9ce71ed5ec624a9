/**
 * Reads a stream to its end and checks it against a digest.
 *
 * A reader may stop early (a tar can end before its stream does): finish() then reads the rest, so that the digest
 * always covers the whole.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';

export interface Promised {
  /** The stream's name in messages. */
  readonly label: string;
  /** `sha256:...` */
  readonly digest: string;
}

export class VerifiedStream implements AsyncIterable<Uint8Array> {
  readonly #pieces: AsyncIterator<Uint8Array>;
  readonly #promised: Promised;
  readonly #hash = createHash('sha256');
  #ended = false;

  constructor(source: AsyncIterable<Uint8Array>, promised: Promised) {
    this.#pieces = source[Symbol.asyncIterator]();
    this.#promised = promised;
  }

  /** There is no return(): stopping early leaves the rest to finish() or close(). */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return { next: () => this.#next() };
  }

  /** @throws {ObdError} `Corrupt` if the bytes do not have the digest; errors of the source. */
  async finish(): Promise<void> {
    while ((await this.#next()).done !== true);
  }

  /** Tells the source that no more bytes will be read. */
  async close(): Promise<void> {
    await this.#pieces.return?.();
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    if (this.#ended) return { done: true, value: undefined };
    const next = await this.#pieces.next();
    if (next.done === true) {
      this.#ended = true;
      this.#checkWhole();
      return next;
    }
    this.#hash.update(next.value);
    return next;
  }

  #checkWhole(): void {
    const found = `sha256:${this.#hash.digest('hex')}`;
    const { label, digest } = this.#promised;
    if (found === digest) return;
    const message = `Cannot use ${label}: its digest is ${found}, not ${digest}`;
    throw new ObdError(ErrorCodes.Corrupt, message, { path: label, digest });
  }
}

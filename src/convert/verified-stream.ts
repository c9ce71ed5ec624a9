/**
 * A stream that is read to its end and checked against the digest it was promised to have.
 *
 * Whoever reads may stop early (a tar or a gzip can end before its blob does): finish() then reads the
 * rest, so that a digest is always of the whole. Too many bytes are noticed as they come, so a stream that
 * does not end is not read for ever.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';

const DIGEST = /^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/;

export interface Promised {
  /** What to call the stream in a message. */
  readonly label: string;
  readonly digest: string;
  /** Undefined where only the digest was promised. */
  readonly sizeBytes: number | undefined;
}

export class VerifiedStream implements AsyncIterable<Uint8Array> {
  readonly #pieces: AsyncIterator<Uint8Array>;
  readonly #promised: Promised;
  readonly #onBytes: (bytes: number) => void;
  readonly #hash;
  #received = 0;
  #ended = false;

  /** @throws {ObdError} `Unsupported` for a digest that is neither sha256 nor sha512. */
  constructor(
    source: AsyncIterable<Uint8Array>,
    promised: Promised,
    onBytes: (bytes: number) => void = () => {},
  ) {
    this.#hash = createHash(algorithmOf(promised));
    this.#pieces = source[Symbol.asyncIterator]();
    this.#promised = promised;
    this.#onBytes = onBytes;
  }

  /** There is no return(): stopping early leaves the rest to finish() or close(). */
  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    return { next: () => this.#next() };
  }

  /** @throws {ObdError} `Corrupt` if what came is not what was promised. */
  async finish(): Promise<void> {
    while ((await this.#next()).done !== true);
  }

  /** Tells the source that no more will be read. */
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
    this.#received += next.value.length;
    const { sizeBytes } = this.#promised;
    if (sizeBytes !== undefined && this.#received > sizeBytes) {
      throw this.#mismatch(`it goes on after the ${sizeBytes} bytes its descriptor states`);
    }
    this.#hash.update(next.value);
    this.#onBytes(next.value.length);
    return next;
  }

  #checkWhole(): void {
    const { digest, sizeBytes } = this.#promised;
    if (sizeBytes !== undefined && this.#received < sizeBytes) {
      throw this.#mismatch(`it ends after ${this.#received} of ${sizeBytes} bytes`);
    }
    const found = `${algorithmOf(this.#promised)}:${this.#hash.digest('hex')}`;
    if (found !== digest) throw this.#mismatch(`its digest is ${found}, not ${digest}`);
  }

  #mismatch(found: string): ObdError {
    const { label, digest } = this.#promised;
    const message = `Cannot use ${label}: ${found}`;
    return new ObdError(ErrorCodes.Corrupt, message, { path: label, digest });
  }
}

function algorithmOf({ label, digest }: Promised): string {
  if (DIGEST.test(digest)) return digest.slice(0, digest.indexOf(':'));
  throw new ObdError(
    ErrorCodes.Unsupported,
    `Cannot check ${label}: ${JSON.stringify(digest.slice(0, 100))} is no sha256 or sha512 digest`,
    { path: label },
  );
}

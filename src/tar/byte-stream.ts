/**
 * Reads exact lengths from a stream that arrives in pieces of any size, and counts the consumed bytes.
 *
 * Only the current piece is buffered: a read inside it is a view, one that straddles pieces is copied into an
 * allocation of the requested length, which the caller bounds. buffered() answers without a promise, so that a large
 * file costs one promise per piece of input, not per block.
 */
export class ByteStream {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #piece: Uint8Array = new Uint8Array(0);
  #ended = false;
  #position = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#pieces = source[Symbol.asyncIterator]();
  }

  /** Bytes consumed since the start of the stream. */
  get position(): number {
    return this.#position;
  }

  /** Returns up to `maxBytes` of the current piece, now; empty if fill() must be awaited. */
  buffered(maxBytes: number): Uint8Array {
    const taken = this.#piece.subarray(0, maxBytes);
    this.#piece = this.#piece.subarray(taken.length);
    this.#position += taken.length;
    return taken;
  }

  /** Waits for the next bytes. Returns false at the end of the stream. */
  async fill(): Promise<boolean> {
    while (this.#piece.length === 0 && !this.#ended) {
      const next = await this.#pieces.next();
      if (next.done === true) this.#ended = true;
      else this.#piece = next.value;
    }
    return this.#piece.length > 0;
  }

  /** Returns exactly `lengthBytes`, or fewer if the stream ends first. The result is valid until the next call. */
  async read(lengthBytes: number): Promise<Uint8Array> {
    await this.fill();
    if (this.#piece.length >= lengthBytes) return this.buffered(lengthBytes);
    const whole = new Uint8Array(lengthBytes);
    let done = 0;
    while (done < lengthBytes && (await this.fill())) {
      const part = this.buffered(lengthBytes - done);
      whole.set(part, done);
      done += part.length;
    }
    return whole.subarray(0, done);
  }

  /** Skips `lengthBytes`; returns false if the stream ends first. */
  async skip(lengthBytes: number): Promise<boolean> {
    let left = lengthBytes;
    while (left > 0) {
      if (!(await this.fill())) return false;
      left -= this.buffered(left).length;
    }
    return true;
  }

  /** Consumes the rest, so that a digest of the underlying stream covers all of it. */
  async drain(): Promise<void> {
    while (await this.fill()) this.buffered(this.#piece.length);
  }

  /** Tells the source that no more bytes will be read. */
  async close(): Promise<void> {
    this.#ended = true;
    await this.#pieces.return?.();
  }
}

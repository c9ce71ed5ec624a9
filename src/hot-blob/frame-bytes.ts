/**
 * Reads what one zstd frame (RFC 8878) holds, in parts whose sizes the caller knows.
 *
 * Decompression runs on the threads of libuv. No more than a few pieces are decompressed ahead of the caller, so a frame
 * that expands without end costs no memory.
 */
import { pipeline, Readable } from 'node:stream';
import { constants, createZstdDecompress } from 'node:zlib';
import { systemCode } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { HOT_BLOB_BYTES_MAX } from './hot-index.js';

/** The largest block of a frame. */
const PIECE_BYTES = 128 * 1024;
/** 8 MiB: what each decoder should support (RFC 8878, 3.1.1.1.2). */
const WINDOW_LOG_MAX = 23;

export class FrameBytes {
  readonly #file: { readonly label: string };
  readonly #decoder = createZstdDecompress({
    chunkSize: PIECE_BYTES,
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
  });
  readonly #pieces: AsyncIterator<Buffer>;
  #piece: Buffer = Buffer.alloc(0);
  #offset = 0;
  #compressedBytes = 0;

  /** @param compressed - A piece of it is used until the frame is closed. */
  constructor(compressed: AsyncIterable<Uint8Array>, file: { readonly label: string }) {
    this.#file = file;
    // Readable.from() passes the pieces on as they are, bounded by their count.
    const input = Readable.from(this.#counted(compressed), { highWaterMark: 2 });
    // Errors of either side end the iteration; the callback has nothing left to do.
    pipeline(input, this.#decoder, () => {});
    this.#pieces = this.#decoder[Symbol.asyncIterator]();
  }

  /** How many bytes of the content were read. */
  get offset(): number {
    return this.#offset;
  }

  /** Fills `target` with the next bytes. @throws {ObdError} `Corrupt`; errors of the source. */
  async read(target: Uint8Array): Promise<void> {
    for (let done = 0; done < target.length; ) {
      if (this.#piece.length === 0 && !(await this.#next())) {
        throw corrupt(this.#file, this.#offset, 'the content ends too early');
      }
      const part = this.#piece.subarray(0, target.length - done);
      target.set(part, done);
      this.#piece = this.#piece.subarray(part.length);
      this.#offset += part.length;
      done += part.length;
    }
  }

  /**
   * Checks that no content follows. An empty frame at the beginning of a piece passes.
   *
   * @throws {ObdError} as read().
   */
  async readEnd(): Promise<void> {
    const hasMore = this.#piece.length > 0 || (await this.#next());
    if (hasMore) throw corrupt(this.#file, this.#offset, 'the content goes on behind its end');
    // The decoder stops at the end of a frame, unless a piece ends there too.
    const behind = this.#compressedBytes - this.#decoder.bytesWritten;
    if (behind > 0) throw corrupt(this.#file, this.#offset, 'bytes follow the zstd frame');
  }

  /** Ends decompression, and the source. */
  close(): void {
    this.#decoder.destroy();
  }

  async #next(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.#nextPiece();
      if (done === true) return false;
      this.#piece = value;
      if (value.length > 0) return true;
    }
  }

  async #nextPiece(): Promise<IteratorResult<Buffer>> {
    try {
      return await this.#pieces.next();
    } catch (error) {
      const code = systemCode(error) ?? '';
      if (code === 'Z_BUF_ERROR') {
        throw corrupt(this.#file, this.#offset, 'its zstd frame ends too early');
      }
      if (!code.startsWith('ZSTD_')) throw error;
      throw corrupt(this.#file, this.#offset, `no zstd frame that can be decompressed (${code})`);
    }
  }

  async *#counted(compressed: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of compressed) {
      this.#compressedBytes += piece.length;
      if (this.#compressedBytes > HOT_BLOB_BYTES_MAX) {
        throw corrupt(this.#file, this.#offset, `it has more than ${HOT_BLOB_BYTES_MAX} bytes`);
      }
      yield piece;
    }
  }
}

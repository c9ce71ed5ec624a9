/**
 * Takes a blob into the cache that its source sends whole in place of a range.
 *
 * Pull-through caches answer so until they have the blob. Nothing in such an answer proves that it is the blob, so the
 * stream is checked twice: its first chunk against the cached one, and its digest at the end.
 *
 *   first chunks agree            chunks are stored as they arrive; a wrong digest invalidates them all
 *   they differ                   nothing is stored; with the right digest, the first chunk replaces the cached one, and
 *                                 the next stream is stored
 *   no first chunk is cached      as if they differed, unless nothing of the blob is cached and the answer has the
 *                                 blob's length
 *   the answer has no length      as above, and only a verified digest keeps the stored chunks: it is read to its end, even
 *                                 if nothing waits for the rest
 *
 * Memory: one buffer of BUFFER_CHUNKS. The source is read no faster than the chunks are stored.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { WholeAnswer } from '../io/ranged-source.js';
import type { SpeedFloor } from '../io/speed-floor.js';
import type { BlobSource } from './blob-source.js';

const BUFFER_CHUNKS = 16;

/** The store that the chunks of a stream go to. */
export interface StreamSink {
  readonly sizeBytes: number;
  /** Whether the chunk is missing, and has space on the disk or a read that waits for it. */
  wants(chunk: number): boolean;
  /** Whether a read waits for the chunk. */
  isAwaited(chunk: number): boolean;
  /** False if other bytes are cached for the chunk; undefined if none are. */
  agrees(chunk: number, bytes: Uint8Array): boolean | undefined;
  /** Whether nothing of the blob is on the disk. */
  isEmpty(): boolean;
  /** Whether the rest of the blob is of any use. */
  isUseful(): boolean;
  keep(first: number, bytes: Uint8Array): Promise<void>;
  invalidate(first: number, end: number): void;
  /** Reports that the cached bytes of the chunk are not the blob's. */
  damaged(chunk: number): void;
}

export class WholeStream {
  /** The chunk that comes next. */
  position = 0;
  /** On the clock of performance.now(). */
  progressMs = performance.now();
  readonly #source: BlobSource;
  readonly #sink: StreamSink;
  /** The chunks that this stream stored, as [first, end). */
  readonly #kept: [number, number][] = [];
  /** The first chunk, if it differs from the cached one or none is cached: the stream is then checked and not stored. */
  #doubted: Uint8Array | undefined;
  /** The stream was read to its end, and its digest is the blob's. */
  #isVerified = false;

  constructor(source: BlobSource, sink: StreamSink) {
    this.#source = source;
    this.#sink = sink;
  }

  /**
   * @throws {ObdError} `Registry` if it is not the blob, `Unavailable` if it ends early or another server is asked next;
   *   what pieces() throws.
   */
  async take(whole: WholeAnswer, floor: SpeedFloor): Promise<void> {
    try {
      await this.#take(whole, floor);
    } finally {
      // Without a length, only the digest distinguishes the blob from an error page of a proxy.
      if (!whole.sizeKnown && !this.#isVerified) this.#invalidateKept();
    }
  }

  async #take(whole: WholeAnswer, floor: SpeedFloor): Promise<void> {
    const { sizeBytes } = this.#sink;
    const hash = createHash(this.#source.key.digest.slice(0, this.#source.key.digest.indexOf(':')));
    const buffer = Buffer.alloc(Math.min(BUFFER_CHUNKS * CHUNK_BYTES, sizeBytes));
    let filled = 0;
    let received = 0;
    for await (const piece of whole.pieces(floor)) {
      hash.update(piece);
      received += piece.length;
      this.progressMs = performance.now();
      if (received > sizeBytes) throw this.#refusal(whole, 'is longer than the blob');
      for (let taken = 0; taken < piece.length; ) {
        const part = piece.subarray(taken, taken + buffer.length - filled);
        buffer.set(part, filled);
        taken += part.length;
        filled += part.length;
        if (filled === buffer.length || this.#completesAwaited(filled)) {
          filled = await this.#flush(buffer, filled, whole);
        }
      }
      // Without a length, only the end of the stream shows that the stored chunks are the blob's.
      if (whole.sizeKnown && !this.#sink.isUseful()) {
        whole.cutOff();
        return;
      }
    }
    if (received < sizeBytes) {
      if (!whole.sizeKnown) throw this.#refusal(whole, `has ${received} bytes`);
      const problem = `${whole.host} sent ${received} of ${sizeBytes} bytes`;
      throw new ObdError(ErrorCodes.Unavailable, `Cannot read ${this.#source.label}: ${problem}`);
    }
    const found = `${this.#source.key.digest.split(':', 1)[0]}:${hash.digest('hex')}`;
    if (found !== this.#source.key.digest) throw this.#refusal(whole, `has the digest ${found}`);
    this.#isVerified = true;
    // The last chunk may be short, so only the end of the stream shows that it is complete.
    if (filled > 0) await this.#keep(buffer.subarray(0, filled), whole);
    if (this.#doubted === undefined) return;
    if (this.#sink.agrees(0, this.#doubted) === false) {
      this.#sink.damaged(0);
      this.#sink.invalidate(0, 1);
    }
    await this.#sink.keep(0, this.#doubted);
  }

  /** Whether a read waits for the last whole chunk in the buffer. */
  #completesAwaited(filled: number): boolean {
    const chunks = Math.floor(filled / CHUNK_BYTES);
    return chunks > 0 && this.#sink.isAwaited(this.position + chunks - 1);
  }

  /** Keeps the whole chunks. @returns How much is left in the buffer. */
  async #flush(buffer: Buffer, filled: number, whole: WholeAnswer): Promise<number> {
    const bytes = filled - (filled % CHUNK_BYTES);
    await this.#keep(buffer.subarray(0, bytes), whole);
    buffer.copyWithin(0, bytes, filled);
    return filled - bytes;
  }

  async #keep(bytes: Uint8Array, { sizeKnown }: WholeAnswer): Promise<void> {
    if (bytes.length === 0 || this.#doubted !== undefined) return;
    const first = this.position;
    const end = first + Math.ceil(bytes.length / CHUNK_BYTES);
    const bytesOf = (from: number, to: number) =>
      bytes.subarray((from - first) * CHUNK_BYTES, (to - first) * CHUNK_BYTES);
    if (first === 0) {
      const begin = bytesOf(0, 1);
      if (!(this.#sink.agrees(0, begin) ?? (sizeKnown && this.#sink.isEmpty()))) {
        this.#doubted = Uint8Array.from(begin);
        return;
      }
    }
    for (let chunk = first; chunk < end; chunk++) {
      if (!this.#sink.wants(chunk)) continue;
      const from = chunk;
      while (chunk + 1 < end && this.#sink.wants(chunk + 1)) chunk++;
      this.#kept.push([from, chunk + 1]);
      await this.#sink.keep(from, bytesOf(from, chunk + 1));
    }
    this.position = end;
  }

  #invalidateKept(): void {
    for (const [first, end] of this.#kept.splice(0)) this.#sink.invalidate(first, end);
  }

  /** Invalidates everything that the stream stored: it is not the blob. */
  #refusal(whole: WholeAnswer, problem: string): ObdError {
    this.#invalidateKept();
    const message = `Cannot read ${this.#source.label}: what ${whole.host} sends in place of a range is not the blob: it ${problem}`;
    const details = { digest: this.#source.key.digest };
    const error = new ObdError(ErrorCodes.Registry, message, details);
    if (!whole.refuse(error)) return error;
    const next = `${message}; asking another host`;
    return new ObdError(ErrorCodes.Unavailable, next, details, error);
  }
}

/**
 * A blob that its registry sends whole where a range was asked for, taken into the cache as it passes.
 *
 * Pull-through caches answer so until they have the blob. Nothing in such an answer says that it is the blob, so that its
 * first chunk is compared with the one that is here since the blob was opened, and its digest is checked at the end: if that
 * is wrong, everything that came of it is dropped. Where the first chunks differ, neither is believed: the stream is only
 * checked, and if its digest is right its first chunk replaces the one that was here. The next stream is then kept.
 * The same where there is none to compare with, unless nothing of the blob is here and the answer has its length. An answer
 * without a length keeps nothing in the cache unless its digest was verified.
 *
 * Memory: one buffer of BUFFER_CHUNKS. The registry is read no faster than the chunks are stored.
 */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import type { WholeAnswer } from '../io/ranged-source.js';
import type { SpeedFloor } from '../io/speed-floor.js';
import type { BlobSource } from './blob-source.js';
import { CHUNK_BYTES } from './chunk-set.js';

const BUFFER_CHUNKS = 16;

/** Where its chunks go. */
export interface StreamSink {
  readonly sizeBytes: number;
  /** Whether the chunk is wanted: it is missing, and there is room to keep it or a read waits for it. */
  wants(chunk: number): boolean;
  /** Whether a read waits for the chunk. */
  isAwaited(chunk: number): boolean;
  /** False if the chunk is here with other bytes; undefined if it is not here. */
  agrees(chunk: number, bytes: Uint8Array): boolean | undefined;
  /** Whether nothing of the blob is on the disk. */
  isEmpty(): boolean;
  /** Whether more of the blob is of any use. */
  isUseful(): boolean;
  keep(first: number, bytes: Uint8Array): Promise<void>;
  invalidate(first: number, end: number): void;
  /** The chunk that is here has other bytes than the blob. */
  damaged(chunk: number): void;
}

export class WholeStream {
  /** The chunk that comes next. */
  position = 0;
  /** On the clock of performance.now(). */
  progressMs = performance.now();
  readonly #source: BlobSource;
  readonly #sink: StreamSink;
  /** Chunks that came of this stream, as [first, end). */
  readonly #kept: [number, number][] = [];
  /** The first chunk, where another is here or none to compare it with: the stream is then checked and not kept. */
  #doubted: Uint8Array | undefined;
  /** It was read to its end, and its digest is the blob's. */
  #isVerified = false;

  constructor(source: BlobSource, sink: StreamSink) {
    this.#source = source;
    this.#sink = sink;
  }

  /** @throws {ObdError} `Registry` if it is not the blob, `Unavailable` if it breaks off; what its pieces throw. */
  async take(whole: WholeAnswer, floor: SpeedFloor): Promise<void> {
    try {
      await this.#take(whole, floor);
    } finally {
      // Without a length, nothing but the digest tells it from a page of a proxy.
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
      if (!this.#sink.isUseful()) {
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
    // The last chunk may be shorter than others, and only now it is known to be whole.
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

  /** It is not the blob: nothing of it stays. */
  #refusal(whole: WholeAnswer, problem: string): ObdError {
    whole.cutOff();
    this.#invalidateKept();
    const message = `Cannot read ${this.#source.label}: what ${whole.host} sends in place of a range is not the blob: it ${problem}`;
    return new ObdError(ErrorCodes.Registry, message, { digest: this.#source.key.digest });
  }
}

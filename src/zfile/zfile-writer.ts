/**
 * Writes a ZFile as a stream: bytes come in any pieces, blocks go out in order.
 *
 * On the sink, in this order: a provisional header (sizes zero, not yet final), the blocks, the
 * index, the trailer, and last the final header over the provisional one. A file cut short therefore
 * never opens: its header sends the reader to a trailer that is not there.
 *
 * Same bytes in, same bytes out, however they were cut. Memory: two buffers of about BATCH_BYTES,
 * and 4 bytes per block for the index.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import {
  type Algorithm,
  Algorithms,
  BLOCK_BYTES_MAX,
  CHECKSUM_BYTES,
  encodeBlocks,
  encodedBytesMax,
} from './block-codec.js';
import { rawCrc32c } from './raw-crc32c.js';
import {
  BLOCKS_MAX,
  encodeFinalHeader,
  encodeProvisionalHeader,
  encodeTrailer,
  HEADER_BYTES,
  INDEX_ENTRY_BYTES,
  isBlockSize,
} from './zfile-header.js';

/** Bytes taken in per native call: a multiple of every block size. */
const BATCH_BYTES = 256 * 1024;
/** Upstream's reader fails on a stored block longer than this, its checksum not counted. */
const STORED_BYTES_MAX = 65536;

/** Where a writer puts bytes: the end, or over what it wrote before. */
export interface RewritableSink {
  /** Appends. `bytes` may be reused once this returns. */
  write(bytes: Uint8Array): void;
  /** Replaces bytes already written; `offset` counts from the first byte this writer wrote. */
  writeAt(bytes: Uint8Array, offset: number): void;
}

export interface ZFileOptions {
  readonly algorithm: Algorithm;
  /** Bytes per block before compression: 4, 8, 16, 32 or 64 KiB. */
  readonly blockBytes: number;
}

export class ZFileWriter {
  readonly #sink: RewritableSink;
  readonly #algorithm: Algorithm;
  readonly #blockBytes: number;
  readonly #batch = Buffer.alloc(BATCH_BYTES);
  readonly #encoded: Buffer;
  readonly #batchLengths: Uint32Array;
  #batched = 0;
  #lengths = new Uint32Array(1024);
  #blocks = 0;
  #storedEnd = HEADER_BYTES;
  #bytesIn = 0;

  /** Writes the provisional header. @throws {ObdError} `InvalidArgument` for an odd block size. */
  constructor(sink: RewritableSink, { algorithm, blockBytes }: ZFileOptions) {
    if (!isBlockSize(blockBytes)) {
      throw new ObdError(
        ErrorCodes.InvalidArgument,
        `Cannot write a ZFile in blocks of ${blockBytes} bytes: use 4, 8, 16, 32 or 64 KiB`,
      );
    }
    this.#sink = sink;
    this.#algorithm = algorithm;
    this.#blockBytes = blockBytes;
    this.#encoded = Buffer.alloc(encodedBytesMax(blockBytes, BATCH_BYTES));
    this.#batchLengths = new Uint32Array(BATCH_BYTES / blockBytes);
    sink.write(encodeProvisionalHeader(blockBytes, Algorithms[algorithm]));
  }

  /**
   * Takes the next bytes; `chunk` may be reused afterwards.
   * @throws {ObdError} `Unsupported` if a 64 KiB block does not compress (no reader accepts it), or
   *   if there are more blocks than a reader accepts; and what the sink throws.
   */
  write(chunk: Uint8Array): void {
    for (let taken = 0; taken < chunk.length; ) {
      const part = chunk.subarray(taken, taken + BATCH_BYTES - this.#batched);
      this.#batch.set(part, this.#batched);
      this.#batched += part.length;
      taken += part.length;
      if (this.#batched === BATCH_BYTES) this.#flush();
    }
  }

  /** Writes what is left, index, trailer and final header. The file is complete; write no more. */
  finish(): void {
    this.#flush();
    const index = this.#encodeIndex();
    this.#sink.write(index);
    const layout = {
      indexOffset: this.#storedEnd,
      blocks: this.#blocks,
      decompressedBytes: this.#bytesIn,
      indexCrc: rawCrc32c(index, 0),
      blockBytes: this.#blockBytes,
      algorithm: Algorithms[this.#algorithm],
      checked: true,
    };
    this.#sink.write(encodeTrailer(layout));
    this.#sink.writeAt(encodeFinalHeader(layout), 0);
  }

  /** After finish(): where the index lies in the file. */
  get index(): { readonly offset: number; readonly bytes: number } {
    return { offset: this.#storedEnd, bytes: this.#blocks * INDEX_ENTRY_BYTES };
  }

  /** After finish(): how many bytes of the file hold the first `bytes` that were written, the header included. */
  storedBytesOf(bytes: number): number {
    const blocks = Math.min(Math.ceil(bytes / this.#blockBytes), this.#blocks);
    return this.#lengths.subarray(0, blocks).reduce((sum, length) => sum + length, HEADER_BYTES);
  }

  #flush(): void {
    if (this.#batched === 0) return;
    const count = Math.ceil(this.#batched / this.#blockBytes);
    if (this.#blocks + count > BLOCKS_MAX) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot write a ZFile of more than ${BLOCKS_MAX} blocks: use larger blocks`,
      );
    }
    const used = encodeBlocks(
      Algorithms[this.#algorithm],
      this.#blockBytes,
      this.#batch,
      this.#batched,
      this.#encoded,
      this.#batchLengths,
    );
    const lengths = this.#batchLengths.subarray(0, count);
    if (this.#blockBytes === BLOCK_BYTES_MAX) this.#checkReadable(lengths);
    this.#append(lengths);
    this.#sink.write(this.#encoded.subarray(0, used));
    this.#storedEnd += used;
    this.#bytesIn += this.#batched;
    this.#batched = 0;
  }

  #checkReadable(lengths: Uint32Array): void {
    if (lengths.every((length) => length - CHECKSUM_BYTES <= STORED_BYTES_MAX)) return;
    throw new ObdError(
      ErrorCodes.Unsupported,
      'Cannot write a ZFile in blocks of 64 KiB: one does not compress, and then overlaybd could ' +
        'not read it; use blocks of 32 KiB or less',
    );
  }

  #append(lengths: Uint32Array): void {
    if (this.#blocks + lengths.length > this.#lengths.length) {
      const grown = new Uint32Array(this.#lengths.length * 2);
      grown.set(this.#lengths);
      this.#lengths = grown;
    }
    this.#lengths.set(lengths, this.#blocks);
    this.#blocks += lengths.length;
  }

  #encodeIndex(): Buffer {
    const index = Buffer.alloc(this.#blocks * 4);
    for (let i = 0; i < this.#blocks; i++) index.writeUInt32LE(this.#lengths[i]!, i * 4);
    return index;
  }
}

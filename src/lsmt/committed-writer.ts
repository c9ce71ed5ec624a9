/**
 * Writes a committed layer as a stream: header, data, index, trailer, in that order and each once.
 *
 * Segments come in ascending order and are stored as they come; neighbours that continue each other
 * on the disk and in the file share a record, as upstream's tools do it, so that the same segments
 * give the same bytes however they were cut. Memory: 16 bytes per record.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { RECORDS_MAX } from './committed-layer.js';
import {
  encodePadding,
  encodeRecord,
  type IndexRecord,
  LENGTH_MAX,
  RECORD_BYTES,
} from './index-records.js';
import {
  encodeLayerHeader,
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  HEADER_BYTES,
} from './layer-header.js';
import { NULL_UUID, requireUuid } from './layer-uuid.js';

/** The index is padded to whole multiples of this many records, 4096 bytes. */
const RECORDS_ALIGNMENT = 256;

/** Takes bytes in order; they may be reused once write() returns. A ZFileWriter is one. */
export interface ByteSink {
  write(bytes: Uint8Array): void;
}

export interface CommittedLayerOptions {
  /** Bytes of the disk, a multiple of 512. */
  readonly virtualBytes: number;
  /** Default: the null UUID. */
  readonly uuid?: string;
  readonly parentUuid?: string;
  /** At most 256 bytes, latin1. */
  readonly userTag?: string;
}

export class CommittedLayerWriter {
  readonly #sink: ByteSink;
  readonly #virtualBytes: number;
  readonly #uuid: string;
  readonly #parentUuid: string;
  readonly #userTag: string;
  readonly #last: IndexRecord = { start: 0, end: 0, moffset: 0, zeroed: false, tag: 0 };
  #records = Buffer.alloc(64 * RECORD_BYTES);
  #recordCount = 0;
  /** Where the next data go in the file, in sectors. */
  #moffset = HEADER_BYTES / SECTOR_BYTES;

  /** Writes the header. @throws {ObdError} `InvalidArgument` for a bad size, UUID or tag. */
  constructor(sink: ByteSink, options: CommittedLayerOptions) {
    if (!Number.isSafeInteger(options.virtualBytes) || options.virtualBytes < 0) {
      throw new ObdError(ErrorCodes.InvalidArgument, `A disk of ${options.virtualBytes} bytes`);
    }
    this.#sink = sink;
    this.#virtualBytes = options.virtualBytes;
    this.#uuid = requireUuid(options.uuid ?? NULL_UUID);
    this.#parentUuid = requireUuid(options.parentUuid ?? NULL_UUID);
    this.#userTag = options.userTag ?? '';
    if (this.#virtualBytes % SECTOR_BYTES !== 0) {
      throw new ObdError(
        ErrorCodes.InvalidArgument,
        `Cannot write a layer: a disk of ${this.#virtualBytes} bytes is not one of whole sectors`,
      );
    }
    sink.write(this.#encodeHeader(FLAG_HEADER | FLAG_DATA | FLAG_SEALED, 0, 0));
  }

  /**
   * Stores `bytes` at `offset` of the disk. Both are multiples of 512, and `offset` is not before
   * the end of what was stored last: anything else is a bug, and a RangeError.
   *
   * @throws {ObdError} `Unsupported` past RECORDS_MAX, and what the sink throws.
   */
  write(offset: number, bytes: Uint8Array): void {
    this.#add(offset, bytes.length, false);
    this.#sink.write(bytes);
  }

  /** Makes [offset, offset + length) read as zeroes; this hides the layers below. */
  writeZeroes(offset: number, length: number): void {
    this.#add(offset, length, true);
  }

  /** Writes index and trailer. The layer is complete; write no more. */
  finish(): void {
    this.#endRecord();
    const padded = Math.ceil(this.#recordCount / RECORDS_ALIGNMENT) * RECORDS_ALIGNMENT;
    const index = Buffer.alloc(padded * RECORD_BYTES);
    this.#records.copy(index, 0, 0, this.#recordCount * RECORD_BYTES);
    for (let i = this.#recordCount; i < padded; i++) encodePadding(index, i * RECORD_BYTES);
    this.#sink.write(index);
    const indexOffset = this.#moffset * SECTOR_BYTES;
    this.#sink.write(this.#encodeHeader(FLAG_DATA | FLAG_SEALED, indexOffset, padded));
  }

  #add(offset: number, length: number, zeroed: boolean): void {
    const end = offset + length;
    if (offset % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0) {
      throw new RangeError(`[${offset}, ${end}) is not made of sectors`);
    }
    if (!(offset >= this.#last.end * SECTOR_BYTES && end <= this.#virtualBytes)) {
      throw new RangeError(`[${offset}, ${end}) is out of order, or outside the disk`);
    }
    const last = this.#last;
    let start = offset / SECTOR_BYTES;
    for (let left = length / SECTOR_BYTES; left > 0; ) {
      let sectors = Math.min(left, LENGTH_MAX);
      if (last.end === start && last.zeroed === zeroed && last.end > last.start) {
        // Upstream joins two records only if they make less than LENGTH_MAX together.
        const room = LENGTH_MAX - 1 - (last.end - last.start);
        if (room > 0) sectors = Math.min(left, room);
        else this.#beginRecord(start, zeroed);
      } else {
        this.#beginRecord(start, zeroed);
      }
      last.end = start + sectors;
      start += sectors;
      left -= sectors;
      if (!zeroed) this.#moffset += sectors;
    }
  }

  #beginRecord(start: number, zeroed: boolean): void {
    this.#endRecord();
    this.#last.start = start;
    this.#last.end = start;
    this.#last.moffset = this.#moffset;
    this.#last.zeroed = zeroed;
  }

  #endRecord(): void {
    if (this.#last.end === this.#last.start) return;
    if (this.#recordCount === RECORDS_MAX) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot write a layer of more than ${RECORDS_MAX} segments: no reader would take it`,
      );
    }
    if (this.#records.length === this.#recordCount * RECORD_BYTES) {
      this.#records = Buffer.concat([this.#records], this.#records.length * 2);
    }
    encodeRecord(this.#records, this.#recordCount * RECORD_BYTES, this.#last);
    this.#recordCount++;
  }

  #encodeHeader(flags: number, indexOffset: number, indexEntries: number): Buffer {
    return encodeLayerHeader({
      flags,
      indexOffset,
      indexEntries,
      virtualBytes: this.#virtualBytes,
      uuid: this.#uuid,
      parentUuid: this.#parentUuid,
      userTag: this.#userTag,
    });
  }
}

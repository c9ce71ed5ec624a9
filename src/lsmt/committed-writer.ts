/**
 * Writes a committed layer as a stream: header, data, index, trailer, in that order and each once.
 *
 * Data are stored in the order in which they come, which is free; the index is sorted at the end. Segments that continue
 * the one before, on the disk and in the file, share its record, as upstream's tools do it, so that the same segments
 * give the same bytes however they were cut. Memory: 16 bytes per record, and three times that to sort them.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { RECORDS_MAX } from './committed-layer.js';
import {
  decodeRecord,
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
   * Stores `bytes` at `offset` of the disk. Both are multiples of 512, and no sector is stored twice: anything else is a
   * bug, and a RangeError, here or in finish().
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

  /** Bytes of the layer up to here: header and data. */
  get writtenBytes(): number {
    return this.#moffset * SECTOR_BYTES;
  }

  /** Writes index and trailer. The layer is complete; write no more. */
  finish(): void {
    this.#endRecord();
    const padded = Math.ceil(this.#recordCount / RECORDS_ALIGNMENT) * RECORDS_ALIGNMENT;
    const index = Buffer.alloc(padded * RECORD_BYTES);
    sortRecords(this.#records.subarray(0, this.#recordCount * RECORD_BYTES), index);
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
    if (!(offset >= 0 && end <= this.#virtualBytes)) {
      throw new RangeError(`[${offset}, ${end}) is outside the disk`);
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

/** Copies `records` to `target` in the order of the disk. @throws {RangeError} if two overlap, which is a bug. */
function sortRecords(records: Buffer, target: Buffer): void {
  const count = records.length / RECORD_BYTES;
  const record: IndexRecord = { start: 0, end: 0, moffset: 0, zeroed: false, tag: 0 };
  const starts = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    decodeRecord(records, i * RECORD_BYTES, record);
    starts[i] = record.start;
  }
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  order.sort((a, b) => starts[a]! - starts[b]!);
  let end = 0;
  for (const [i, from] of order.entries()) {
    decodeRecord(records, from * RECORD_BYTES, record);
    if (record.start < end) throw new RangeError(`sector ${record.start} was stored twice`);
    end = record.end;
    records.copy(target, i * RECORD_BYTES, from * RECORD_BYTES, (from + 1) * RECORD_BYTES);
  }
}

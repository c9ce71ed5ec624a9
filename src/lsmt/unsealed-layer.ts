/**
 * A writable layer as its writer left it, opened to read. Two forms, told apart by the data's header:
 *
 *   append-only  data: header 4096 | what was written, in order of writing
 *                index: header 4096 | a record per write; a later one hides an earlier one
 *   sparse       header 4096 | the disk itself, as a sparse file; there is no index
 *
 * open() checks both headers, and that every record maps inside the data. The end of a log that a
 * crash cut inside a record is ignored.
 *
 * In a sparse file, holes are parts that the layer does not hold. open() does not ask for holes, which would take
 * lseek(SEEK_DATA) in native/posix: all of the disk counts as data. That is right only for a layer at the bottom.
 */
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { corrupt, unsupported } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { RECORD_BYTES, readRecords } from './index-records.js';
import type { Layer } from './layer.js';
import {
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  FLAG_SPARSE,
  HEADER_BYTES,
  type LayerHeader,
  parseLayerHeader,
} from './layer-header.js';
import { LogReplay } from './overlay.js';
import { type Segments, SegmentsBuilder, ZEROES } from './segments.js';

/** A log of 256 MiB. Replaying it takes seconds; upstream takes 128 million. */
export const LOG_RECORDS_MAX = 1 << 24;

const FIRST_SECTOR = HEADER_BYTES / SECTOR_BYTES;
const KIND_FLAGS = FLAG_HEADER | FLAG_DATA | FLAG_SEALED;

export class UnsealedLayer implements Layer {
  readonly label: string;
  readonly virtualBytes: number;
  readonly uuid: string;
  readonly parentUuid: string;
  readonly userTag: string;
  readonly segments: Segments;
  readonly sources: readonly RandomAccessFile[];
  readonly bottomOnly: boolean;

  private constructor(data: RandomAccessFile, header: LayerHeader, segments: Segments) {
    this.label = data.label;
    this.virtualBytes = header.virtualBytes;
    this.uuid = header.uuid;
    this.parentUuid = header.parentUuid;
    this.userTag = header.userTag;
    this.segments = segments;
    this.sources = [data];
    this.bottomOnly = (header.flags & FLAG_SPARSE) !== 0;
  }

  /**
   * @param data - Taken over: close() closes it. After an error it is still the caller's.
   * @param index - Read here and not kept: the caller closes it. Ignored for a sparse layer.
   * @throws {ObdError} `Corrupt`, `Unsupported`, and what reading throws.
   */
  static async open(data: RandomAccessFile, index: RandomAccessFile): Promise<UnsealedLayer> {
    const header = await readHeader(data, FLAG_HEADER | FLAG_DATA);
    const sparse = (header.flags & FLAG_SPARSE) !== 0;
    const segments = sparse ? wholeDisk(data, header) : await replay(data, header, index);
    return new UnsealedLayer(data, header, segments);
  }

  close(): void {
    for (const source of this.sources) source.close();
  }
}

async function readHeader(file: RandomAccessFile, flagsWanted: number): Promise<LayerHeader> {
  if (file.sizeBytes < HEADER_BYTES) {
    throw corrupt(file, 0, `${file.sizeBytes} bytes are too few for a layer`);
  }
  const block = Buffer.alloc(HEADER_BYTES);
  await readFully(file, block, 0);
  return parseLayerHeader(block, file, 0, KIND_FLAGS, flagsWanted);
}

function wholeDisk(data: RandomAccessFile, { virtualBytes }: LayerHeader): Segments {
  if (data.sizeBytes < HEADER_BYTES + virtualBytes) {
    throw corrupt(data, data.sizeBytes, `the file ends inside its disk of ${virtualBytes} bytes`);
  }
  const segments = new SegmentsBuilder();
  if (virtualBytes > 0) segments.add(0, virtualBytes / SECTOR_BYTES, FIRST_SECTOR, 0);
  return segments.finish();
}

async function replay(
  data: RandomAccessFile,
  header: LayerHeader,
  index: RandomAccessFile,
): Promise<Segments> {
  const { uuid } = await readHeader(index, FLAG_HEADER);
  if (uuid !== header.uuid) {
    throw corrupt(index, 0, `this is the index of layer ${uuid}, the data are of ${header.uuid}`);
  }
  const count = Math.floor((index.sizeBytes - HEADER_BYTES) / RECORD_BYTES);
  if (count > LOG_RECORDS_MAX) {
    const found = `a log of ${count} records`;
    throw unsupported(index, HEADER_BYTES, `${found}, the limit is ${LOG_RECORDS_MAX}`);
  }
  const dataEnd = Math.floor(data.sizeBytes / SECTOR_BYTES);
  const log = new LogReplay();
  await readRecords(index, HEADER_BYTES, count, (record, at) => {
    const { start, end, moffset, zeroed } = record;
    if (!zeroed && (moffset < FIRST_SECTOR || moffset + end - start > dataEnd)) {
      const range = `[${moffset}, ${moffset + end - start})`;
      throw corrupt(index, at, `sectors ${range} are not in the ${dataEnd} of ${data.label}`);
    }
    log.add(start, end, moffset, zeroed ? ZEROES : 0);
  });
  return log.finish();
}

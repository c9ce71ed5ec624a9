/**
 * A layer that no longer changes, in one file: committed, or sealed in place.
 *
 *   header 4096 | data | index: records of 16 bytes | trailer 4096
 *
 * A committed file is compact and its index padded to 4096 bytes; a sealed one is an append-only or
 * sparse writable layer with index and trailer behind it. The trailer has all fields; only the
 * magic of the header counts.
 *
 * Opening checks header, trailer and every record: ascending and disjoint, and mapped inside the data.
 * Data have no checksum here; the ZFile around the layer has.
 */
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { corrupt, refetchWhileCorrupt, unsupported } from '../io/format-error.js';
import { INDEX_REFETCHES_MAX, type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { RECORD_BYTES, readRecords } from './index-records.js';
import type { Layer } from './layer.js';
import {
  FLAG_DATA,
  FLAG_HEADER,
  FLAG_SEALED,
  HEADER_BYTES,
  type LayerHeader,
  parseLayerHeader,
} from './layer-header.js';
import { SEGMENT_BYTES, type Segments, SegmentsBuilder, ZEROES } from './segments.js';

/** Upstream's readers refuse more in a read-only layer. A record takes 16 bytes on disk. */
export const RECORDS_MAX = 1_000_000;

/** While the records are read, a list twice as large as they need and a copy that is not; see SegmentsBuilder. */
const RECORD_MEMORY_BYTES = 3 * SEGMENT_BYTES;

const FIRST_SECTOR = HEADER_BYTES / SECTOR_BYTES;

export class CommittedLayer implements Layer {
  readonly label: string;
  readonly virtualBytes: number;
  readonly uuid: string;
  readonly parentUuid: string;
  readonly userTag: string;
  readonly segments: Segments;
  readonly sources: readonly RandomAccessFile[];
  readonly bottomOnly = false;

  private constructor(sources: readonly RandomAccessFile[], trailer: LayerHeader, map: Segments) {
    this.label = sources[0]!.label;
    this.virtualBytes = trailer.virtualBytes;
    this.uuid = trailer.uuid;
    this.parentUuid = trailer.parentUuid;
    this.userTag = trailer.userTag;
    this.segments = map;
    this.sources = sources;
  }

  /**
   * Reads header and trailer, the first step of opening a layer.
   *
   * @throws {ObdError} `Corrupt`, `Unsupported`, and read errors of `file`.
   */
  static async readTrailer(file: RandomAccessFile): Promise<LayerHeader> {
    const trailerAt = file.sizeBytes - HEADER_BYTES;
    if (trailerAt < HEADER_BYTES) {
      throw corrupt(file, 0, `${file.sizeBytes} bytes are too few for a layer`);
    }
    await readHeader(file, 0, FLAG_HEADER, FLAG_HEADER);
    const sealed = FLAG_DATA | FLAG_SEALED;
    const trailer = await readHeader(file, trailerAt, FLAG_HEADER | sealed, sealed);
    const { indexOffset, indexEntries } = trailer;
    if (indexEntries > RECORDS_MAX) {
      const found = `an index of ${indexEntries} entries`;
      throw unsupported(file, trailerAt + 40, `${found}, the limit is ${RECORDS_MAX}`);
    }
    if (indexOffset < HEADER_BYTES || indexOffset + indexEntries * RECORD_BYTES > trailerAt) {
      const found = `an index of ${indexEntries} entries at ${indexOffset}`;
      throw corrupt(file, trailerAt + 32, `${found} does not lie between header and trailer`);
    }
    return trailer;
  }

  /** Memory that load() allocates. */
  static indexBytes({ indexEntries }: LayerHeader): number {
    return indexEntries * RECORD_MEMORY_BYTES;
  }

  /**
   * Reads the index, the second step.
   *
   * @param sources - The layer owns them: close() closes them. After an error the caller still does. The blob; for a
   *   TurboOCI layer, whose blob has the metadata of the file system, also the uncompressed tar of the original layer.
   *   Nothing in the blob tells such a layer from a plain one: the caller knows from the image.
   * @throws {ObdError} as readTrailer().
   */
  static async load(
    sources: readonly RandomAccessFile[],
    trailer: LayerHeader,
  ): Promise<CommittedLayer> {
    const { indexOffset, indexEntries } = trailer;
    const segments = await refetchWhileCorrupt(
      sources[0]!,
      indexOffset,
      indexEntries * RECORD_BYTES,
      () => readSegments(sources, indexOffset, indexEntries),
      INDEX_REFETCHES_MAX,
    );
    return new CommittedLayer(sources, trailer, segments);
  }

  close(): void {
    for (const source of this.sources) source.close();
  }
}

async function readHeader(
  file: RandomAccessFile,
  at: number,
  flagsMask: number,
  flagsWanted: number,
): Promise<LayerHeader> {
  return await refetchWhileCorrupt(file, at, HEADER_BYTES, async () => {
    const block = Buffer.alloc(HEADER_BYTES);
    await readFully(file, block, at);
    return parseLayerHeader(block, file, at, flagsMask, flagsWanted);
  });
}

/** Reads the index and checks that it is sorted and stays inside the data of its sources. */
async function readSegments(
  sources: readonly RandomAccessFile[],
  indexOffset: number,
  indexEntries: number,
): Promise<Segments> {
  const file = sources[0]!;
  const target = sources[1];
  const dataEnd = Math.floor(indexOffset / SECTOR_BYTES);
  const targetEnd = target === undefined ? 0 : Math.floor(target.sizeBytes / SECTOR_BYTES);
  const segments = new SegmentsBuilder();
  await readRecords(file, indexOffset, indexEntries, (record, at) => {
    const { start, end, moffset, zeroed } = record;
    // In a merged layer a tag names the original layer of a segment, and is ignored. Only in a TurboOCI
    // layer does it name the file: 0 is the blob and 1 the target.
    const number = target === undefined ? 0 : record.tag;
    if (start < segments.end) {
      throw corrupt(
        file,
        at,
        `segment at sector ${start} overlaps one that ends at ${segments.end}`,
      );
    }
    if (number >= sources.length) throw corrupt(file, at, `tag ${number} in a TurboOCI layer`);
    const first = number === 0 ? FIRST_SECTOR : 0;
    const last = number === 0 ? dataEnd : targetEnd;
    const length = zeroed ? 0 : end - start;
    if (moffset < first || moffset + length > last) {
      const range = `[${moffset}, ${moffset + length})`;
      throw corrupt(file, at, `sectors ${range} are outside the data, [${first}, ${last})`);
    }
    segments.add(start, end, moffset, zeroed ? ZEROES : number);
  });
  return segments.finish();
}

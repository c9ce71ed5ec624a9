/** Layer files in memory, right or deliberately wrong in one place. */
import { SECTOR_BYTES } from '../../src/io/block-sizes.js';
import type { RandomAccessFile } from '../../src/io/random-access-file.js';
import { CommittedLayer } from '../../src/lsmt/committed-layer.js';
import { encodePadding, encodeRecord, RECORD_BYTES } from '../../src/lsmt/index-records.js';
import { encodeLayerHeader, HEADER_BYTES, type LayerHeader } from '../../src/lsmt/layer-header.js';
import { NULL_UUID } from '../../src/lsmt/layer-uuid.js';
import { ZEROES } from '../../src/lsmt/segments.js';
import type { Segment } from './segments.js';

export const SAMPLE_UUID = 'E733042D-BD47-4B54-AC93-08D58396F508';

/** The parts of a record besides a segment's fields. */
export type Record = Segment & { readonly tag?: number };

/** The 4096-byte block with all fields as `fields` has them. */
export function headerBlock(fields: Partial<LayerHeader>): Buffer {
  return encodeLayerHeader({
    flags: 7,
    indexOffset: 0,
    indexEntries: 0,
    virtualBytes: 1 << 20,
    uuid: SAMPLE_UUID,
    parentUuid: NULL_UUID,
    userTag: '',
    ...fields,
  });
}

/** Records one after the other, `null` for padding, unchecked. */
export function recordBytes(records: ReadonlyArray<Record | null>): Buffer {
  const bytes = Buffer.alloc(records.length * RECORD_BYTES);
  for (const [i, r] of records.entries()) {
    if (r === null) encodePadding(bytes, i * RECORD_BYTES);
    else {
      const { start, length, moffset, source, tag = 0 } = r;
      const zeroed = source === ZEROES;
      encodeRecord(bytes, i * RECORD_BYTES, { start, end: start + length, moffset, zeroed, tag });
    }
  }
  return bytes;
}

/** Header, data, index as given, trailer. */
export function layerFile(
  data: Uint8Array,
  records: ReadonlyArray<Record | null>,
  {
    header = {},
    trailer = {},
  }: { header?: Partial<LayerHeader>; trailer?: Partial<LayerHeader> } = {},
): Buffer {
  const indexOffset = HEADER_BYTES + data.length;
  return Buffer.concat([
    headerBlock(header),
    data,
    recordBytes(records),
    headerBlock({ flags: 6, indexOffset, indexEntries: records.length, ...trailer }),
  ]);
}

/** `sectors` sectors, each filled with its own number. */
export function numberedSectors(sectors: number): Buffer {
  const data = Buffer.alloc(sectors * SECTOR_BYTES);
  for (let i = 0; i < sectors; i++) data.fill(i + 1, i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES);
  return data;
}

/** @param target - Tar of the original layer, for a TurboOCI layer. */
export async function openCommitted(
  blob: RandomAccessFile,
  ...target: RandomAccessFile[]
): Promise<CommittedLayer> {
  return await CommittedLayer.load([blob, ...target], await CommittedLayer.readTrailer(blob));
}

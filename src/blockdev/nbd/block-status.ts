/**
 * The answer to BLOCK_STATUS: which parts of a range are allocated, as base:allocation describes it.
 * Costs one look-up in the disk's index per extent, and reads no data.
 */
import type { VirtualDisk } from '../virtual-disk.js';
import { EXTENT_HOLE_AND_ZERO } from './protocol.js';

/** A reply may stop early and the client asks on; this keeps it, and the time it takes, small. */
const EXTENTS_MAX = 2048;
const EXTENT_BYTES = 8;

/**
 * Extents of {length u32, flags u32} from `offset` on, no further than `length`, at least one.
 *
 * @param one - Stop after the first.
 */
export function encodeExtents(
  disk: VirtualDisk,
  offset: number,
  length: number,
  one: boolean,
): Buffer {
  const extentsMax = one ? 1 : EXTENTS_MAX;
  const lengths: number[] = [];
  for (let at = 0; at < length && lengths.length < extentsMax; at += Math.abs(lengths.at(-1)!)) {
    lengths.push(disk.extentAt(offset + at, length - at));
  }
  const encoded = Buffer.alloc(lengths.length * EXTENT_BYTES);
  for (const [i, extent] of lengths.entries()) {
    encoded.writeUInt32BE(Math.abs(extent), i * EXTENT_BYTES);
    encoded.writeUInt32BE(extent < 0 ? EXTENT_HOLE_AND_ZERO : 0, i * EXTENT_BYTES + 4);
  }
  return encoded;
}

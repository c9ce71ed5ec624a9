/**
 * Runs of consecutive ZFile blocks in memory, one call of the native add-on for each run.
 *
 * decodeBlocks() checks each block's CRC-32C before it decompresses it. Neither function reads or
 * writes outside its buffers, for any bytes (the add-on checks again).
 *
 * Cost: no allocation. About 0.15 us per call, and for a 4 KiB block 1.1 us to decode lz4, 4.2 us to
 * decode zstd, 3.6 us to encode lz4, 14 us zstd. docs/adr/0002-zfile-codec.md says how measured.
 */
import { loadNativeAddon } from '../io/native-addon.js';

/** Values of the header's `algo` byte. 0 is minilzo, which no tool writes. */
export const Algorithms = { lz4: 1, zstd: 2 } as const;
export type Algorithm = keyof typeof Algorithms;
export type AlgorithmId = (typeof Algorithms)[Algorithm];

/** Bytes of the CRC-32C behind each stored block. */
export const CHECKSUM_BYTES = 4;
/** No file has larger blocks: upstream's reader refuses them. */
export const BLOCK_BYTES_MAX = 65536;
/** Bytes that upstream's compressors may add to a block that does not compress. */
export const EXPANSION_BYTES_MAX = 512;

interface Addon {
  decode(
    algorithm: number,
    checked: boolean,
    blockBytes: number,
    source: Uint8Array,
    offsets: Uint32Array,
    first: number,
    count: number,
    target: Uint8Array,
    targetAt: number,
    bytes: number,
  ): number;
  boundaries(
    lengths: Uint8Array,
    boundaries: Uint32Array,
    shortest: number,
    longest: number,
  ): number;
  encode(
    algorithm: number,
    blockBytes: number,
    source: Uint8Array,
    bytes: number,
    target: Uint8Array,
    lengths: Uint32Array,
  ): number;
}

const addon = loadNativeAddon('zfile-codec', 'zfile_codec') as Addon;

/** How the blocks of one file are stored. */
export interface BlockForm {
  readonly algorithm: AlgorithmId;
  /** Whether {@link CHECKSUM_BYTES} of CRC follow each block. */
  readonly checked: boolean;
  /** Decompressed bytes of every block but, perhaps, the last. */
  readonly blockBytes: number;
}

/**
 * Decompresses the `count` blocks from `first` on into target[targetAt, targetAt + bytes).
 *
 * @param source - Their stored bytes, and nothing before them.
 * @param offsets - offsets[i] is where block i is stored, offsets[i + 1] where it ends; only
 *   differences count. Ascending.
 * @param bytes - count × blockBytes, or less by what the last block lacks.
 * @returns The number of the first bad block, counted from `first`, or -1. From that block on
 *   the target's content is unspecified.
 */
export function decodeBlocks(
  form: BlockForm,
  source: Uint8Array,
  offsets: Uint32Array,
  first: number,
  count: number,
  target: Uint8Array,
  targetAt: number,
  bytes: number,
): number {
  const { algorithm, checked, blockBytes } = form;
  if (!(first >= 0 && count > 0 && first + count < offsets.length)) {
    throw new RangeError(`blocks [${first}, ${first + count}) are not in the table`);
  }
  if (!(targetAt >= 0 && bytes > 0 && targetAt + bytes <= target.length)) {
    throw new RangeError(`[${targetAt}, ${targetAt + bytes}) is outside the target`);
  }
  return addon.decode(
    algorithm,
    checked,
    blockBytes,
    source,
    offsets,
    first,
    count,
    target,
    targetAt,
    bytes,
  );
}

/**
 * Where blocks end that are stored one behind the other, from the index of their lengths.
 *
 * @param lengths - A u32 per block, little-endian.
 * @param boundaries - One entry more: receives 0 and the end of each block, counted from the start of the first.
 * @returns The first block whose length is not in [shortest, longest], or -1.
 */
export function blockBoundaries(
  lengths: Uint8Array,
  boundaries: Uint32Array,
  shortest: number,
  longest: number,
): number {
  return addon.boundaries(lengths, boundaries, shortest, longest);
}

/** Room that {@link encodeBlocks} needs for `bytes` bytes, at worst. */
export function encodedBytesMax(blockBytes: number, bytes: number): number {
  const blocks = Math.ceil(bytes / blockBytes);
  return bytes + blocks * (EXPANSION_BYTES_MAX + CHECKSUM_BYTES);
}

/**
 * Compresses source[0, bytes) block by block into `target`, a CRC behind each.
 *
 * @param lengths - Receives the stored length of each block, CRC included.
 * @returns Bytes of `target` used.
 */
export function encodeBlocks(
  algorithm: AlgorithmId,
  blockBytes: number,
  source: Uint8Array,
  bytes: number,
  target: Uint8Array,
  lengths: Uint32Array,
): number {
  if (!(bytes > 0 && bytes <= source.length)) throw new RangeError(`${bytes} bytes to encode`);
  if (target.length < encodedBytesMax(blockBytes, bytes)) throw new RangeError('target too small');
  if (lengths.length < Math.ceil(bytes / blockBytes)) throw new RangeError('lengths too short');
  return addon.encode(algorithm, blockBytes, source, bytes, target, lengths);
}

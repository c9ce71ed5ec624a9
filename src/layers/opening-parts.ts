/**
 * Which parts of a remote blob opening it reads: they are fetched at once, before any of them is looked at.
 *
 *   the beginning    the headers, and the file system's metadata as far as the image says how long they are
 *   the end          the indexes of ZFile and layer; where there is a hash tree, which is behind them, also the part of it that
 *                    proves both parts
 *
 * The header of the tree, in that part, is also given on its own: the image names its digest.
 * The rest of what is larger is read later.
 */
import { firstTreeBytes, TREE_HEADER_BYTES } from '../zfile/hash-tree-layout.js';
import type { LowerLayer } from './lower-layer.js';

/** Headers of tar, ZFile and layer. */
const HEADERS_BYTES = 4096;
/** Limit for fetching the file system's metadata, which follow the headers, at once; the rest is fetched as it is read. */
const METADATA_BYTES_MAX = 4 << 20;
/** How much metadata decompresses to, at most as far as its hashes are concerned: inode tables are half empty. */
const METADATA_RATIO = 8;
/**
 * How much of a blob's end is fetched to open it. The ZFile's index has 4 bytes per block, so with blocks of
 * 4 KiB compressed to a half it is a 512th of the blob; the layer's own index is a few KiB before it.
 */
const TAIL_SHARE = 1 / 512;
const TAIL_BYTES_MIN = 64 * 1024;
/** The rest of a larger index is fetched after the headers have been read and the memory for it has been charged. */
const TAIL_BYTES_MAX = 4 << 20;

/** The limit for all layers of an image together. */
export const OPENING_BYTES_MAX = 64 << 20;

export interface BlobPart {
  readonly offset: number;
  readonly length: number;
  /** `sha256:...` of these bytes, if the image names it. */
  readonly digest?: string;
}

/**
 * @param sizeBytes - Of the blob.
 * @param layers - How many the image has.
 */
export function openingParts(
  { metadataBytes = 0, hashTree }: LowerLayer,
  sizeBytes: number,
  layers: number,
): readonly BlobPart[] {
  const bytesMax = Math.floor(OPENING_BYTES_MAX / layers);
  const treeBytes = Math.max(0, sizeBytes - (hashTree?.offset ?? sizeBytes));
  const firstBytes = treeBytes && firstTreeBytes(treeBytes, metadataBytes * METADATA_RATIO);
  const end = sizeBytes - treeBytes + firstBytes;
  const indexBytes = Math.max(TAIL_BYTES_MIN, Math.ceil(sizeBytes * TAIL_SHARE));
  const tailBytes = Math.min(end, indexBytes + firstBytes, TAIL_BYTES_MAX, bytesMax);
  const spareBytes = bytesMax - tailBytes;
  const headBytes = Math.max(
    HEADERS_BYTES,
    Math.min(metadataBytes, METADATA_BYTES_MAX, spareBytes),
  );
  return [
    { offset: 0, length: Math.min(headBytes, sizeBytes) },
    { offset: end - tailBytes, length: tailBytes },
    ...(hashTree === undefined || treeBytes < TREE_HEADER_BYTES
      ? []
      : [{ offset: hashTree.offset, length: TREE_HEADER_BYTES, digest: hashTree.root }]),
  ];
}

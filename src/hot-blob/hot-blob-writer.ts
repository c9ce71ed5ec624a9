/**
 * Writes a hot blob: the pages of a start, and what proves them (docs/formats/hot-blob.md).
 *
 * The index is first and has the CRCs, so pages are read twice. The first pass proves them, and the second compares them with
 * the first: a blob that this writer finishes is one that readers accept. Memory: the index, a node, and a few parts.
 */
import { constants, createZstdCompress, type ZstdCompress } from 'node:zlib';
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { HashTree } from '../zfile/hash-tree.js';
import {
  HASH_BYTES,
  HASHES_PER_NODE,
  LEAF_BYTES,
  NODE_BYTES,
  TREE_HEADER_BYTES,
} from '../zfile/hash-tree-layout.js';
import { firstWrongCrc, firstWrongLeaf } from '../zfile/leaf-hashes.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { encodeHotIndex, HOT_PAGES_MAX, type HotIndex } from './hot-index.js';
import { hotSteps } from './hot-steps.js';

/**
 * Measured with 15 to 49 MB of pages of a Debian: 15 % smaller than by level 3, in 0.4 to 1.5 s instead of 0.1 to 0.4 s. Level
 * 12 gains 1 % more for twice the time. A blob is written once and read by many hosts, as fast as by level 3.
 */
const COMPRESSION_LEVEL = 9;

/** A layer that pages are read of. */
export interface HotSource {
  /** `sha256:...` of the layer's blob. */
  readonly digest: string;
  /** `sha256:...`, the root of `tree`. */
  readonly root: string;
  /** The layer without tar and compression. */
  readonly file: RandomAccessFile;
  readonly tree: HashTree;
}

/**
 * Yields the blob in pieces. Layers without a run are left out of it.
 *
 * @param sources - Each digest once. The caller keeps and closes the files.
 * @param runs - Triples in order of first use: number in `sources`, first leaf, count of leaves. No leaf twice.
 * @throws {ObdError} `InvalidArgument` for runs that the format does not permit; `Corrupt` for a page that the tree does not
 *   prove; read errors of the files.
 */
export async function* writeHotBlob(
  sources: readonly HotSource[],
  runs: Uint32Array,
): AsyncGenerator<Uint8Array> {
  const { used, index } = indexOf(sources, runs);
  // Checks the runs before a page is read.
  let bytes = encodeHotIndex(index);
  let contentBytes = bytes.length + index.pages * LEAF_BYTES;
  for (const { kind } of hotSteps(index)) {
    if (kind === 'header') contentBytes += TREE_HEADER_BYTES;
    if (kind === 'node') contentBytes += NODE_BYTES;
  }
  await computeCrcs(used, index);
  bytes = encodeHotIndex(index);
  const compressor = createZstdCompress({
    pledgedSrcSize: contentBytes,
    params: { [constants.ZSTD_c_compressionLevel]: COMPRESSION_LEVEL },
  });
  // Errors of the content end the iteration below.
  void feed(compressor, content(used, index, bytes));
  yield* compressor;
}

/**
 * Writes all pieces, and ends the frame after the last one was taken. pipeline() would end it earlier: Node then writes an
 * empty frame behind it.
 */
async function feed(compressor: ZstdCompress, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const piece of pieces) {
      await new Promise<void>((resolve, reject) => {
        compressor.write(piece, (error) => (error ? reject(error) : resolve()));
      });
    }
    compressor.end();
  } catch (error) {
    compressor.destroy(error as Error);
  }
}

/** The index without CRCs, and the sources in the order of its layers. */
function indexOf(
  sources: readonly HotSource[],
  runs: Uint32Array,
): { readonly used: readonly HotSource[]; readonly index: HotIndex } {
  const numbers = new Map<number, number>();
  const numbered = Uint32Array.from(runs);
  let pages = 0;
  for (let run = 0; run < runs.length; run += 3) {
    const layer = runs[run]!;
    if (!numbers.has(layer)) numbers.set(layer, numbers.size);
    numbered[run] = numbers.get(layer)!;
    pages += runs[run + 2] ?? 0;
  }
  const used = [...numbers.keys()].flatMap((layer) => sources[layer] ?? []);
  if (used.length < numbers.size) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot write a hot blob: a run is of a layer behind the ${sources.length} given`,
    );
  }
  const layers = used.map(({ digest, root, tree }) => {
    return { digest, root, leafedBytes: tree.header.leafedBytes };
  });
  // More pages are refused; the array must not be as large as they say.
  const crcs = new Uint32Array(Math.min(pages, HOT_PAGES_MAX + 1));
  return { used, index: { layers, runs: numbered, crcs, pages: crcs.length } };
}

/** The first pass: proves all pages, and fills in their CRCs. */
async function computeCrcs(sources: readonly HotSource[], index: HotIndex): Promise<void> {
  for (const step of hotSteps(index)) {
    if (step.kind !== 'pages') continue;
    const { layer, leaf, count, slot } = step;
    const { tree, file } = sources[layer]!;
    const { leafedBytes, topHash } = tree.header;
    const pages = await readPages(file, leaf, count, leafedBytes);
    const hasNodes = leafedBytes > LEAF_BYTES;
    const hashes = hasNodes ? await tree.readNode(0, Math.floor(leaf / HASHES_PER_NODE)) : topHash;
    const hashesAt = (leaf % HASHES_PER_NODE) * HASH_BYTES;
    const bytes = Math.min(pages.length, leafedBytes - leaf * LEAF_BYTES);
    const wrong = firstWrongLeaf(pages, 0, bytes, hashes, hashesAt);
    if (wrong !== -1) {
      const at = (leaf + wrong) * LEAF_BYTES;
      throw corrupt(file, at, 'this page is not what the hash tree of the layer proves');
    }
    for (let i = 0; i < count; i++) index.crcs[slot + i] = crcOf(pages, i);
  }
}

/** The second pass: all that the blob holds. */
async function* content(
  sources: readonly HotSource[],
  index: HotIndex,
  indexBytes: Buffer,
): AsyncGenerator<Uint8Array> {
  yield indexBytes;
  for (const step of hotSteps(index)) {
    const { tree, file } = sources[step.layer]!;
    if (step.kind === 'header') yield tree.headerBytes;
    else if (step.kind === 'node') yield await tree.readNode(step.level, step.node);
    else {
      const { leaf, count, slot } = step;
      const pages = await readPages(file, leaf, count, tree.header.leafedBytes);
      const wrong = firstWrongCrc(pages, 0, pages.length, index.crcs, slot);
      if (wrong !== -1) {
        throw corrupt(file, (leaf + wrong) * LEAF_BYTES, 'this page changed while it was read');
      }
      yield pages;
    }
  }
}

/** Leaves of one node, the last one filled up with zeroes. */
async function readPages(
  file: RandomAccessFile,
  leaf: number,
  count: number,
  leafedBytes: number,
): Promise<Buffer> {
  const pages = Buffer.alloc(count * LEAF_BYTES);
  const offset = leaf * LEAF_BYTES;
  await readFully(file, pages.subarray(0, leafedBytes - offset), offset);
  return pages;
}

function crcOf(pages: Buffer, i: number): number {
  return rawCrc32c(pages.subarray(i * LEAF_BYTES, (i + 1) * LEAF_BYTES), 0);
}

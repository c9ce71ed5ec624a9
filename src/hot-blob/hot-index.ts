/**
 * The index of a hot blob: which pages it holds, of which layers, and in which order (docs/formats/hot-blob.md).
 *
 *   head 32 | layers, 72 each | runs, 12 each | a CRC per page, 4 each | CRC of all these bytes
 *
 * The index proves nothing. It says what to expect; the hash trees in the blob prove the pages, and the image's manifest
 * names their roots. Once the pages are proved, an index stored with them says what each slot holds.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { HASH_BYTES, LEAF_BYTES } from '../zfile/hash-tree-layout.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { hotSteps } from './hot-steps.js';

/** Pages of one hot blob: 128 MiB. */
export const HOT_PAGES_MAX = 32768;
/** Nodes of hash trees in one hot blob, 32 MiB: a reader keeps them all. */
const HOT_NODES_MAX = 8192;
const LAYERS_MAX = 256;
/** Limit of the compressed blob. The limits above permit 161 MiB of content, and zstd adds little to what it cannot compress. */
export const HOT_BLOB_BYTES_MAX = 168 << 20;
/** The number of a leaf has 32 bits. */
const LEAFED_BYTES_MAX = 2 ** 32 * LEAF_BYTES;

export const HOT_HEAD_BYTES = 32;
const LAYER_BYTES = 2 * HASH_BYTES + 8;
const RUN_BYTES = 12;
const CRC_BYTES = 4;

const MAGIC = Buffer.from('OBDHOT\0\0', 'latin1');
const VERSION = 1;
const SHA256 = /^sha256:[0-9a-f]{64}$/;

/** A layer of the image that has pages in the blob. */
export interface HotLayer {
  /** `sha256:...` of the layer's blob. */
  readonly digest: string;
  /** `sha256:...`, the root of its hash tree. */
  readonly root: string;
  /** How many bytes the leaves of the tree cover. */
  readonly leafedBytes: number;
}

export interface HotIndex {
  /** No digest twice, and each of them has a run. */
  readonly layers: readonly HotLayer[];
  /** Triples in order of first use: number in `layers`, first leaf, count of leaves. No leaf twice. */
  readonly runs: Uint32Array;
  /** The raw CRC-32C of each page, by slot. Slot i is the i-th page in the order of `runs`. */
  readonly crcs: Uint32Array;
  /** How many pages the blob holds. */
  readonly pages: number;
}

/** The index as it is stored. @throws {ObdError} `InvalidArgument` for one that the format does not permit. */
export function encodeHotIndex(index: HotIndex): Buffer {
  const problem = problemOf(index);
  if (problem !== undefined) {
    throw new ObdError(ErrorCodes.InvalidArgument, `Cannot write a hot blob: ${problem}`);
  }
  const { layers, runs, crcs, pages } = index;
  const bytes = Buffer.alloc(bytesOf(layers.length, runs.length / 3, pages));
  bytes.set(MAGIC, 0);
  const numbers = [VERSION, LEAF_BYTES, layers.length, runs.length / 3, pages];
  for (const [i, value] of numbers.entries()) bytes.writeUInt32LE(value, MAGIC.length + 4 * i);
  let at = HOT_HEAD_BYTES;
  for (const { digest, root, leafedBytes } of layers) {
    bytes.write(digest.slice('sha256:'.length), at, 'hex');
    bytes.write(root.slice('sha256:'.length), at + HASH_BYTES, 'hex');
    bytes.writeBigUInt64LE(BigInt(leafedBytes), at + 2 * HASH_BYTES);
    at += LAYER_BYTES;
  }
  for (const value of [...runs, ...crcs]) at = bytes.writeUInt32LE(value, at);
  bytes.writeUInt32LE(rawCrc32c(bytes.subarray(0, at), 0), at);
  return bytes;
}

/**
 * How long the index is, by its first {@link HOT_HEAD_BYTES} bytes: at most 0.6 MB.
 *
 * @throws {ObdError} `Corrupt`; `Unsupported` for a version or a size of pages that this build does not know.
 */
export function hotIndexBytes(head: Buffer, file: { readonly label: string }): number {
  if (head.length < HOT_HEAD_BYTES || !head.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw corrupt(file, 0, 'this is no hot blob');
  }
  const [version, pageBytes, layers, runs, pages] = wordsOf(head, MAGIC.length, 5);
  if (version !== VERSION || pageBytes !== LEAF_BYTES) {
    const found = `a hot blob of version ${version} with pages of ${pageBytes} bytes`;
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot read ${file.label}: ${found}, and this build knows version ${VERSION} with ${LEAF_BYTES}; update obd-blockd`,
      { path: file.label },
    );
  }
  const problem = countsProblem(layers!, runs!, pages!);
  if (problem !== undefined) throw corrupt(file, MAGIC.length, problem);
  return bytesOf(layers!, runs!, pages!);
}

/**
 * Reads an index, and checks all that can be checked without the pages.
 *
 * @param bytes - The index and nothing else.
 * @throws {ObdError} as hotIndexBytes().
 */
export function parseHotIndex(bytes: Buffer, file: { readonly label: string }): HotIndex {
  const length = hotIndexBytes(bytes, file);
  if (bytes.length !== length) {
    throw corrupt(file, 0, `an index of ${bytes.length} bytes, and its head says ${length}`);
  }
  const crcAt = length - CRC_BYTES;
  if (bytes.readUInt32LE(crcAt) !== rawCrc32c(bytes.subarray(0, crcAt), 0)) {
    throw corrupt(file, crcAt, 'the index fails its CRC');
  }
  const [layerCount, runCount, pages] = wordsOf(bytes, MAGIC.length + 8, 3);
  const layers: HotLayer[] = [];
  let at = HOT_HEAD_BYTES;
  for (let i = 0; i < layerCount!; i++, at += LAYER_BYTES) {
    layers.push({
      digest: `sha256:${bytes.toString('hex', at, at + HASH_BYTES)}`,
      root: `sha256:${bytes.toString('hex', at + HASH_BYTES, at + 2 * HASH_BYTES)}`,
      leafedBytes: Number(bytes.readBigUInt64LE(at + 2 * HASH_BYTES)),
    });
  }
  const runs = wordsOf(bytes, at, 3 * runCount!);
  const crcs = wordsOf(bytes, at + RUN_BYTES * runCount!, pages!);
  const index = { layers, runs, crcs, pages: pages! };
  const problem = problemOf(index);
  if (problem !== undefined) throw corrupt(file, 0, problem);
  if (bytes.readUInt32LE(HOT_HEAD_BYTES - 4) !== 0) {
    throw corrupt(file, HOT_HEAD_BYTES - 4, 'the last 4 bytes of the head are not zero');
  }
  return index;
}

function bytesOf(layers: number, runs: number, pages: number): number {
  return HOT_HEAD_BYTES + layers * LAYER_BYTES + runs * RUN_BYTES + (pages + 1) * CRC_BYTES;
}

function wordsOf(bytes: Buffer, at: number, count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, i) => bytes.readUInt32LE(at + 4 * i));
}

function countsProblem(layers: number, runs: number, pages: number): string | undefined {
  if (pages < 1 || pages > HOT_PAGES_MAX) return `${pages} pages, not 1 to ${HOT_PAGES_MAX}`;
  if (runs < 1 || runs > pages) return `${runs} runs of ${pages} pages`;
  if (layers < 1 || layers > LAYERS_MAX) return `${layers} layers, not 1 to ${LAYERS_MAX}`;
  return undefined;
}

/** The first rule of the format that an index breaks. */
function problemOf(index: HotIndex): string | undefined {
  const { layers, runs, crcs, pages } = index;
  if (runs.length % 3 !== 0 || crcs.length !== pages) return 'a run or a CRC is missing';
  return (
    countsProblem(layers.length, runs.length / 3, pages) ??
    layersProblem(layers) ??
    runsProblem(index) ??
    nodesProblem(index)
  );
}

function layersProblem(layers: readonly HotLayer[]): string | undefined {
  for (const { digest, root, leafedBytes } of layers) {
    if (!SHA256.test(digest) || !SHA256.test(root)) return `"${digest}" or "${root}" is no SHA-256`;
    if (!(leafedBytes >= 1 && leafedBytes <= LEAFED_BYTES_MAX)) {
      return `a layer of ${leafedBytes} bytes, not 1 to ${LEAFED_BYTES_MAX}`;
    }
  }
  const digests = new Set(layers.map(({ digest }) => digest));
  return digests.size < layers.length ? 'the same layer twice' : undefined;
}

function runsProblem({ layers, runs, pages }: HotIndex): string | undefined {
  const count = runs.length / 3;
  // Where runs begin and end on a line that has all leaves of all layers.
  const starts = new Float64Array(count);
  const ends = new Float64Array(count);
  const used = new Set<number>();
  let total = 0;
  for (let run = 0; run < count; run++) {
    const [layer, first, leaves] = runs.subarray(3 * run, 3 * run + 3) as unknown as Triple;
    const end = first + leaves;
    if (layer >= layers.length) return `run ${run} is of layer ${layer} of ${layers.length}`;
    if (leaves === 0 || end > Math.ceil(layers[layer]!.leafedBytes / LEAF_BYTES)) {
      return `run ${run} is empty or passes the end of its layer`;
    }
    starts[run] = layer * 2 ** 32 + first;
    ends[run] = layer * 2 ** 32 + end;
    used.add(layer);
    total += leaves;
  }
  if (total !== pages) return `runs of ${total} pages, and it has ${pages}`;
  if (used.size < layers.length) return 'a layer has no run';
  starts.sort();
  ends.sort();
  // Runs are disjoint exactly if the i-th end is not behind the start that follows the i-th.
  for (let i = 1; i < count; i++) if (ends[i - 1]! > starts[i]!) return 'a page is in two runs';
  return undefined;
}

type Triple = readonly [number, number, number];

function nodesProblem(index: HotIndex): string | undefined {
  let nodes = 0;
  for (const { kind } of hotSteps(index)) if (kind === 'node') nodes++;
  if (nodes <= HOT_NODES_MAX) return undefined;
  return `its pages need ${nodes} nodes of hash trees, at most ${HOT_NODES_MAX}`;
}

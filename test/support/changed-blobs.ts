/** Changes of a proved layer's blob as a hostile source could make them: checksums and indexes made right again. */
import {
  Algorithms,
  CHECKSUM_BYTES,
  decodeBlocks,
  encodeBlocks,
  encodedBytesMax,
} from '../../src/zfile/block-codec.js';
import { NODE_BYTES, TREE_HEADER_BYTES } from '../../src/zfile/hash-tree-layout.js';
import { rawCrc32c } from '../../src/zfile/raw-crc32c.js';
import { encodeFinalHeader, encodeTrailer, parseHeader } from '../../src/zfile/zfile-header.js';
import type { ZFileOptions } from '../../src/zfile/zfile-writer.js';
import type { ProvedLayer } from './proved-layer.js';

const PAYLOAD_AT = 1536;
const HEADER_BYTES = 512;

/** A whole number in [0, below). */
export type Random = (below: number) => number;

/** Seeded: mulberry32. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** A layer to change, and another one of the same form and pages whose parts may take the place of its own. */
export interface Changeable {
  readonly own: ProvedLayer;
  readonly other: ProvedLayer;
  readonly form: ZFileOptions;
}

export const CHANGES = {
  'a flipped bit': ({ own }, random) => {
    const blob = Buffer.from(own.blob);
    blob[random(blob.length)]! ^= 1 << random(8);
    return blob;
  },
  'a changed block with a right CRC': changedBlock,
  'two whole blocks exchanged, index and CRCs made right': exchangedBlocks,
  'the layer of another blob in front of the tree': ({ own, other }) => {
    const blob = Buffer.from(own.blob);
    blob.set(other.blob.subarray(0, Math.min(own.hashTree.offset, other.hashTree.offset)), 0);
    return blob;
  },
  'another blob with a right tree': ({ own, other }) => {
    const blob = Buffer.alloc(own.blob.length);
    other.blob.copy(blob);
    return blob;
  },
  'a changed node': ({ own }, random) => {
    const blob = Buffer.from(own.blob);
    blob[own.hashTree.offset + TREE_HEADER_BYTES + random(nodesOf(own) * NODE_BYTES)]! ^= 0x20;
    return blob;
  },
  'a node in the place of another': ({ own, other }, random) => {
    const blob = Buffer.from(own.blob);
    const nodeOf = ({ hashTree }: ProvedLayer, node: number) =>
      hashTree.offset + TREE_HEADER_BYTES + node * NODE_BYTES;
    const [from, to] = [random(nodesOf(own)), random(nodesOf(own))];
    const source = random(2) === 0 && from !== to ? own : other;
    const at = nodeOf(source, from);
    blob.set(source.blob.subarray(at, at + NODE_BYTES), nodeOf(own, to));
    return blob;
  },
  'the header of another tree': ({ own, other }) => {
    const blob = Buffer.from(own.blob);
    const { offset } = other.hashTree;
    blob.set(other.blob.subarray(offset, offset + TREE_HEADER_BYTES), own.hashTree.offset);
    return blob;
  },
  'bytes of another place': ({ own }, random) => {
    const blob = Buffer.from(own.blob);
    const length = 1 + random(100_000);
    const from = random(blob.length - length);
    blob.set(own.blob.subarray(from, from + length), random(blob.length - length));
    return blob;
  },
  zeroes: ({ own }, random) => {
    const from = random(own.blob.length);
    return Buffer.from(own.blob).fill(
      0,
      from,
      Math.min(own.blob.length, from + 1 + random(200_000)),
    );
  },
} as const satisfies Record<string, (blobs: Changeable, random: Random) => Buffer>;

export type ChangeName = keyof typeof CHANGES;

function nodesOf({ blob, hashTree }: ProvedLayer): number {
  return (blob.length - hashTree.offset - TREE_HEADER_BYTES) / NODE_BYTES;
}

/** The blocks as they are stored, CRCs included. */
function blocksOf({ blob }: ProvedLayer): Buffer[] {
  const { layout } = parseHeader(headerOf(blob), { label: 'changed', sizeBytes: blob.length });
  const { blocks, indexOffset } = layout!;
  let at = PAYLOAD_AT + HEADER_BYTES;
  return Array.from({ length: blocks }, (_, i) => {
    const length = blob.readUInt32LE(PAYLOAD_AT + indexOffset + 4 * i);
    at += length;
    return blob.subarray(at - length, at);
  });
}

function headerOf(blob: Buffer): Buffer {
  return blob.subarray(PAYLOAD_AT, PAYLOAD_AT + HEADER_BYTES);
}

/** The blob with these blocks, which take as much room as its own. */
function blobOf({ own }: Changeable, blocks: readonly Buffer[]): Buffer {
  const blob = Buffer.from(own.blob);
  const stored = Buffer.concat(blocks);
  blob.set(stored, PAYLOAD_AT + HEADER_BYTES);
  const index = Buffer.alloc(4 * blocks.length);
  for (const [i, { length }] of blocks.entries()) index.writeUInt32LE(length, 4 * i);
  const { layout } = parseHeader(headerOf(own.blob), { label: 'own', sizeBytes: blob.length });
  const changed = { ...layout!, indexCrc: rawCrc32c(index, 0) };
  blob.set(index, PAYLOAD_AT + changed.indexOffset);
  blob.set(encodeTrailer(changed), PAYLOAD_AT + changed.indexOffset + index.length);
  blob.set(encodeFinalHeader(changed), PAYLOAD_AT);
  return blob;
}

function exchangedBlocks(blobs: Changeable, random: Random): Buffer {
  const blocks = blocksOf(blobs.own);
  const [a, b] = [random(blocks.length), random(blocks.length)];
  [blocks[a], blocks[b]] = [blocks[b]!, blocks[a]!];
  return blobOf(blobs, blocks);
}

/** A byte of one block changed, and the block compressed again: mostly to the same length, as half of it is noise. */
function changedBlock(blobs: Changeable, random: Random): Buffer {
  const { own, form } = blobs;
  const blocks = blocksOf(own);
  const { blockBytes } = form;
  const algorithm = Algorithms[form.algorithm];
  const plain = Buffer.alloc(blockBytes);
  const encoded = Buffer.alloc(encodedBytesMax(blockBytes, blockBytes));
  for (let attempt = 0; attempt < 1000; attempt++) {
    const i = random(blocks.length - 1);
    const offsets = Uint32Array.of(0, blocks[i]!.length);
    const blockForm = { algorithm, checked: true, blockBytes };
    if (decodeBlocks(blockForm, blocks[i]!, offsets, 0, 1, plain, 0, blockBytes) !== -1) break;
    plain[random(blockBytes)]! ^= 1 + random(255);
    const used = encodeBlocks(
      algorithm,
      blockBytes,
      plain,
      blockBytes,
      encoded,
      new Uint32Array(1),
    );
    if (used !== blocks[i]!.length || used <= CHECKSUM_BYTES) continue;
    blocks[i] = Buffer.from(encoded.subarray(0, used));
    return blobOf(blobs, blocks);
  }
  throw new RangeError('no change of a block keeps its length');
}

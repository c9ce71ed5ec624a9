/**
 * Reads the original bytes of a ZFile: finds, checks and decompresses blocks as needed.
 *
 *   header 512 | block 0 | block 1 | ... | index, u32 per block | trailer 512
 *
 * Opening checks, once: header, trailer and index (their CRCs, sizes against the size of the file, every
 * stored length). Every read checks: the CRC of each block, before it is decompressed, and that it
 * decompresses to exactly its length. Where a hash tree proves the layer, the first read of a block after each fetch also
 * checks the decoded block against the tree (proved-blocks.ts), and opening checks header and index.
 *
 * Cost of a read: blocks wanted whole are read and decoded in runs, one source read and one native
 * call per run of up to RUN_BYTES, straight into the caller's buffer; a block wanted in part goes
 * through DecodedBlocks. No promise, and no allocation but one view per run. Blocks of 4 KiB of lz4 in
 * the page cache: 2.5 us for one, 320 us for 1 MiB (bench/formats.ts).
 *
 * The buffer for stored bytes is one per thread, so a ZFile cannot be the source of another ZFile.
 */
import { corrupt, refetchWhileCorrupt, unsupported } from '../io/format-error.js';
import {
  INDEX_REFETCHES_MAX,
  type RandomAccessFile,
  readFully,
  type StoredRange,
} from '../io/random-access-file.js';
import { decodeBlocks } from './block-codec.js';
import { BlockTable, GROUP_BLOCKS } from './block-table.js';
import type { DecodedBlocks } from './decoded-blocks.js';
import { type HashTree, NODE_NOT_LOCAL } from './hash-tree.js';
import { ProvedBlocks } from './proved-blocks.js';
import {
  HEADER_BYTES,
  INDEX_ENTRY_BYTES,
  parseHeader,
  parseTrailer,
  type ZFileLayout,
} from './zfile-header.js';

/** Stored bytes of one run: small enough to be still in the CPU's cache when they are decoded. */
const RUN_BYTES = 128 * 1024;
const storedRun = new Uint8Array(RUN_BYTES);
/** Result of #firstBad() besides a block's number and -1. */
const NOT_LOCAL = NODE_NOT_LOCAL;

/** What proves a ZFile. */
export interface ZFileProof {
  readonly tree: HashTree;
  /** The byte of the tree's blob where the ZFile begins. */
  readonly payloadAt: number;
}

export class ZFileReader implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly layout: ZFileLayout;
  readonly #source: RandomAccessFile;
  readonly #table: BlockTable;
  readonly #proofs: ProvedBlocks | undefined;
  readonly #decoded: DecodedBlocks;
  readonly #name: number;

  private constructor(
    source: RandomAccessFile,
    layout: ZFileLayout,
    table: BlockTable,
    proofs: ProvedBlocks | undefined,
    decoded: DecodedBlocks,
  ) {
    this.label = source.label;
    this.sizeBytes = layout.decompressedBytes;
    this.layout = layout;
    this.#source = source;
    this.#table = table;
    this.#proofs = proofs;
    this.#decoded = decoded;
    this.#name = decoded.nameFile();
  }

  /**
   * Reads header and trailer, the first step of opening a ZFile.
   *
   * @throws {ObdError} `Corrupt`, `Unsupported`, and read errors of `source`.
   */
  static async readLayout(source: RandomAccessFile): Promise<ZFileLayout> {
    if (source.sizeBytes < 2 * HEADER_BYTES) {
      throw corrupt(source, 0, `${source.sizeBytes} bytes are too few for a ZFile`);
    }
    return await readLayout(source);
  }

  /**
   * The layout in a header that a hash tree has proved.
   *
   * @throws {ObdError} `Corrupt`, `Unsupported`.
   */
  static provedLayout(source: RandomAccessFile, header: Buffer): ZFileLayout {
    const { layout } = parseHeader(header, source);
    if (layout !== undefined) return layout;
    throw unsupported(source, 0, 'a hash tree over a ZFile whose header is not final');
  }

  /** Memory that load() allocates. */
  static tableBytes(layout: ZFileLayout, proof?: ZFileProof): number {
    const proofBytes = proof === undefined ? 0 : ProvedBlocks.memoryBytes(proof.payloadAt, layout);
    return BlockTable.memoryBytes(layout.blocks) + proofBytes;
  }

  /**
   * Reads the index, the second step.
   *
   * @param source - The reader owns it: close() closes it. After an error the caller still does.
   * @param decoded - The cache that all files of this thread share.
   * @param proof - For a file that a hash tree proves.
   * @throws {ObdError} as readLayout().
   */
  static async load(
    source: RandomAccessFile,
    layout: ZFileLayout,
    decoded: DecodedBlocks,
    proof?: ZFileProof,
  ): Promise<ZFileReader> {
    const table = await refetchWhileCorrupt(
      source,
      layout.indexOffset,
      layout.blocks * INDEX_ENTRY_BYTES,
      () => BlockTable.load(source, layout, proof?.tree.header.indexHash),
      INDEX_REFETCHES_MAX,
    );
    const proofs = proof && new ProvedBlocks(proof.tree, proof.payloadAt, table, layout);
    return new ZFileReader(source, layout, table, proofs, decoded);
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    this.#checkRange(offset, end);
    const { blockBytes } = this.layout;
    let at = offset;
    while (at < end) {
      const block = Math.floor(at / blockBytes);
      const blockStart = block * blockBytes;
      const whole = end === this.sizeBytes ? this.layout.blocks : Math.floor(end / blockBytes);
      if (at === blockStart && whole > block) {
        const count = this.#runLength(block, whole);
        const bytes = Math.min(count * blockBytes, this.sizeBytes - blockStart);
        if (!this.#decode(block, count, target, at - offset, bytes)) return false;
        at += bytes;
      } else {
        const position = this.#decodedBlock(block);
        if (position === -1) return false;
        const to = Math.min(end, blockStart + blockBytes);
        const from = position + at - blockStart;
        this.#decoded.bytes.copy(target, at - offset, from, from + to - at);
        at = to;
      }
    }
    return true;
  }

  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    this.#checkRange(offset, offset + length);
    if (length === 0) return;
    const { blockBytes } = this.layout;
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((offset + length - 1) / blockBytes);
    const start = this.#table.startOf(first);
    const stored = this.#source.load(start, this.#table.endOf(last) - start, deadlineMs);
    if (this.#proofs === undefined || this.#proofs.areProved(first, last + 1)) return await stored;
    const from = first * blockBytes;
    const bytes = Math.min((last + 1) * blockBytes, this.sizeBytes) - from;
    await Promise.all([stored, this.#proofs.tree.load(from, bytes, deadlineMs)]);
  }

  storedRanges(offset: number, length: number): readonly StoredRange[] {
    this.#checkRange(offset, offset + length);
    if (length === 0) return [];
    const { blockBytes } = this.layout;
    const first = Math.floor(offset / blockBytes);
    const end = Math.ceil((offset + length) / blockBytes);
    const start = this.#table.startOf(first);
    const stored = this.#source.storedRanges?.(start, this.#table.endOf(end - 1) - start) ?? [];
    if (this.#proofs === undefined || stored.length === 0) return stored;
    const from = first * blockBytes;
    const bytes = Math.min(end * blockBytes, this.sizeBytes) - from;
    return [...stored, ...this.#proofs.tree.storedRanges(from, bytes)];
  }

  /**
   * Drops the stored bytes of only the bad blocks in the range, or those of a bad node of the hash tree. Returns true if it
   * dropped some, and also if all are good by now: in both cases a retry can succeed.
   */
  invalidate(offset: number, length: number): boolean {
    this.#checkRange(offset, offset + length);
    if (this.#proofs?.tree.invalidateWrong(offset, length) === true) return true;
    const { blockBytes } = this.layout;
    const scratch = Buffer.alloc(blockBytes);
    let bad = false;
    let dropped = false;
    const end = Math.ceil((offset + length) / blockBytes);
    for (let block = Math.floor(offset / blockBytes); block < end; block++) {
      const bytes = Math.min(blockBytes, this.sizeBytes - block * blockBytes);
      const start = this.#table.startOf(block);
      if (this.#firstBad(block, 1, scratch, 0, bytes) !== 0) continue;
      bad = true;
      if (this.#source.invalidate(start, this.#table.endOf(block) - start)) dropped = true;
    }
    return dropped || !bad;
  }

  /** Also frees the table of blocks now, instead of at the next garbage collection. */
  close(): void {
    this.#source.close();
    this.#table.free();
  }

  #checkRange(start: number, end: number): void {
    if (!(start >= 0 && start <= end && end <= this.sizeBytes)) {
      throw new RangeError(`[${start}, ${end}) is outside "${this.label}"`);
    }
  }

  /** How many of [block, end) make one run: one group of the table, at most RUN_BYTES stored. */
  #runLength(block: number, end: number): number {
    const i = block % GROUP_BLOCKS;
    const boundaries = this.#table.boundariesOf(block);
    let count = Math.min(end - block, GROUP_BLOCKS - i);
    while (boundaries[i + count]! - boundaries[i]! > RUN_BYTES) count >>>= 1;
    return count;
  }

  /** Position in the shared cache of the decoded block; -1 if its stored bytes are not local. */
  #decodedBlock(block: number): number {
    const { blockBytes } = this.layout;
    const found = this.#decoded.find(this.#name, block, blockBytes);
    if (found !== -1) return found;
    const position = this.#decoded.reserve(this.#name, block, blockBytes);
    const bytes = Math.min(blockBytes, this.sizeBytes - block * blockBytes);
    if (!this.#decode(block, 1, this.#decoded.bytes, position, bytes)) return -1;
    this.#decoded.keep(position, blockBytes);
    return position;
  }

  /** Decodes a run into `target`; false if its stored bytes are not local. */
  #decode(
    block: number,
    count: number,
    target: Uint8Array,
    targetAt: number,
    bytes: number,
  ): boolean {
    const bad = this.#firstBad(block, count, target, targetAt, bytes);
    if (bad === -1) return true;
    if (bad === NOT_LOCAL) return false;
    throw corrupt(
      this.#source,
      this.#table.startOf(block + bad),
      this.#proofs === undefined
        ? `block ${block + bad} fails its CRC, or does not decompress to its length`
        : `block ${block + bad} fails its CRC, its length, or its proof by the hash tree`,
    );
  }

  /** The first bad block of a run, -1 if all are good and decoded, or NOT_LOCAL. */
  #firstBad(
    block: number,
    count: number,
    target: Uint8Array,
    targetAt: number,
    bytes: number,
  ): number {
    const boundaries = this.#table.boundariesOf(block);
    const i = block % GROUP_BLOCKS;
    const stored = storedRun.subarray(0, boundaries[i + count]! - boundaries[i]!);
    const start = this.#table.startOf(block);
    this.#proofs?.begin(start, start + stored.length);
    if (!this.#source.tryRead(stored, start)) return NOT_LOCAL;
    const bad = decodeBlocks(this.layout, stored, boundaries, i, count, target, targetAt, bytes);
    if (bad !== -1 || this.#proofs === undefined) return bad;
    return this.#proofs.finish(block, count, target, targetAt, bytes);
  }
}

/** Reads the header if the writer completed it at the end, else the trailer. */
async function readLayout(source: RandomAccessFile): Promise<ZFileLayout> {
  const block = Buffer.alloc(HEADER_BYTES);
  const header = await refetchWhileCorrupt(source, 0, HEADER_BYTES, async () => {
    await readFully(source, block, 0);
    return parseHeader(block, source);
  });
  if (header.layout !== undefined) return header.layout;
  const at = source.sizeBytes - HEADER_BYTES;
  return await refetchWhileCorrupt(source, at, HEADER_BYTES, async () => {
    await readFully(source, block, at);
    return parseTrailer(block, source, at);
  });
}

/**
 * The blocks of a disk that are on this machine, as they come, for a start that reads most of its image: read-pages.ts reads its files
 * ahead.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import type { RandomAccessFile, StoredRange } from '../io/random-access-file.js';
import type { LayeredDisk } from './hot-blocks.js';

/** Looked at, and named, as a whole. */
const PIECE_BYTES = 128 << 10;
/** Looked at in one turn: a fraction of a ms on the thread that serves the disk. */
const LOOKS = 512;
const PAUSE_MS = 10;
/** Half a GiB of page cache. */
const BLOCKS_MAX = 131_072;
/** The list of pieces of a larger disk would be long: 16 GiB. */
const PIECES_MAX = 131_072;
/** Nothing has come for so long. */
const WAIT_MS_MAX = 10_000;

interface Piece {
  readonly file: RandomAccessFile;
  readonly fileOffset: number;
  readonly length: number;
  /** On the disk, in bytes. */
  readonly offset: number;
}

/**
 * Block numbers, in the order of the disk as far as they are there, each once.
 *
 * @param isStored - Whether a range of a blob is on this machine.
 */
export async function* storedBlocks(
  disk: LayeredDisk,
  files: readonly RandomAccessFile[],
  isStored: (range: StoredRange) => boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint32Array, void, undefined> {
  const left = piecesOf(disk, files);
  let blocksLeft = BLOCKS_MAX;
  let cameMs = performance.now();
  for (let at = 0; left.length > 0 && blocksLeft > 0 && !signal.aborted; ) {
    const found: number[] = [];
    const end = Math.min(at + LOOKS, left.length);
    let kept = at;
    for (let i = at; i < end; i++) {
      const piece = left[i]!;
      if (rangesOf(piece).every(isStored)) addBlocks(piece, found);
      else left[kept++] = piece;
    }
    left.splice(kept, end - kept);
    at = kept >= left.length ? 0 : kept;
    if (found.length > 0) {
      cameMs = performance.now();
      yield Uint32Array.from(found.slice(0, blocksLeft));
      blocksLeft -= found.length;
    } else if (performance.now() - cameMs > WAIT_MS_MAX) return;
    await sleep(PAUSE_MS, undefined, { ref: false });
  }
}

function piecesOf(disk: LayeredDisk, files: readonly RandomAccessFile[]): Piece[] {
  const pieces: Piece[] = [];
  disk.eachPartOf(files, (layer, offset, fileOffset, length) => {
    const file = files[layer]!;
    for (let at = 0; at < length; at += PIECE_BYTES) {
      const of = { offset: offset + at, fileOffset: fileOffset + at };
      pieces.push({ file, ...of, length: Math.min(PIECE_BYTES, length - at) });
    }
    return pieces.length < PIECES_MAX;
  });
  return pieces;
}

function rangesOf({ file, fileOffset, length }: Piece): readonly StoredRange[] {
  return file.storedRanges?.(fileOffset, length) ?? [];
}

/** Whole blocks only. */
function addBlocks({ offset, length }: Piece, found: number[]): void {
  const end = Math.floor((offset + length) / EXT4_BLOCK_BYTES);
  for (let block = Math.ceil(offset / EXT4_BLOCK_BYTES); block < end; block++) found.push(block);
}

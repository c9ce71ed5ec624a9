/**
 * Writes a virtual disk as a sparse raw file: what no layer holds, and what is zeroes in whole blocks, is a hole.
 *
 * The file appears under its name only when it is complete and on the disk. On any failure, an interruption included,
 * nothing is left of it.
 *
 * Memory: one piece of PIECE_BYTES. Between pieces the event loop gets its turn, so that signals arrive.
 */
import type { FileHandle } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { replaceFile } from '../io/replace-file.js';
import type { LayerStack } from '../lsmt/layer-stack.js';

const PIECE_BYTES = 1 << 20;
/** The unit of a hole: what file systems allocate in. */
const BLOCK_BYTES = 4096;
const ZEROES = Buffer.alloc(BLOCK_BYTES);

/**
 * @param onProgress - Told how far into the disk it has got, in bytes.
 * @returns Bytes of data written, holes not counted.
 * @throws {ObdError} what reading the disk throws; `NoSpace`, `Io` for the file; the signal's reason.
 */
export async function exportRaw(
  disk: LayerStack,
  path: string,
  signal: AbortSignal,
  onProgress: (doneBytes: number) => void,
): Promise<number> {
  try {
    return await replaceFile(path, 0o644, async (file) => {
      await file.truncate(disk.sizeBytes);
      return await copyData(disk, file, signal, onProgress);
    });
  } catch (error) {
    throw systemCode(error) === undefined ? error : writeFailure(path, error);
  }
}

async function copyData(
  disk: LayerStack,
  file: FileHandle,
  signal: AbortSignal,
  onProgress: (doneBytes: number) => void,
): Promise<number> {
  const buffer = Buffer.alloc(PIECE_BYTES);
  let written = 0;
  for (let at = 0; at < disk.sizeBytes; ) {
    await setImmediate();
    signal.throwIfAborted();
    const extent = disk.extentAt(at, disk.sizeBytes - at);
    const length = extent > 0 ? Math.min(extent, PIECE_BYTES) : -extent;
    if (extent > 0) {
      const piece = buffer.subarray(0, length);
      await readFully(disk, piece, at);
      written += await writeRuns(file, piece, at);
    }
    at += length;
    onProgress(at);
  }
  return written;
}

/** Writes the runs of blocks that are not all zeroes; returns their bytes. */
async function writeRuns(file: FileHandle, piece: Buffer, offset: number): Promise<number> {
  let written = 0;
  let start = 0;
  for (let at = 0; at < piece.length; at += BLOCK_BYTES) {
    const block = piece.subarray(at, at + BLOCK_BYTES);
    if (!block.equals(ZEROES.subarray(0, block.length))) continue;
    written += await writeAll(file, piece.subarray(start, at), offset + start);
    start = at + block.length;
  }
  return written + (await writeAll(file, piece.subarray(start), offset + start));
}

/** A disk that fills up answers a write with fewer bytes first, and with ENOSPC only to the next. */
async function writeAll(file: FileHandle, bytes: Buffer, offset: number): Promise<number> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
  return bytes.length;
}

function writeFailure(path: string, error: unknown): ObdError {
  if (isDiskFull(error)) {
    const remedy = 'free some space there, or choose another place';
    const message = `Cannot write "${path}": the disk is full; ${remedy}`;
    return new ObdError(ErrorCodes.NoSpace, message, { path }, error);
  }
  const message = `Cannot write "${path}": ${messageOf(error)}`;
  return new ObdError(ErrorCodes.Io, message, { path }, error);
}

/**
 * Writes a virtual disk as a sparse raw file. Sectors that no layer holds, and whole blocks of zeroes, become holes.
 *
 * The file appears under its name only when it is complete and on the disk. A failure or an interruption removes it.
 *
 * Memory: one piece of PIECE_BYTES. The event loop runs between pieces, so signals arrive.
 */
import type { FileHandle } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { replaceFile } from '../io/replace-file.js';
import type { LayerStack } from '../lsmt/layer-stack.js';

const PIECE_BYTES = 1 << 20;
/** Granularity of holes: the block size of common file systems. */
const HOLE_BYTES = 4096;
const ZEROES = Buffer.alloc(HOLE_BYTES);

/**
 * @param onProgress - Receives the position in the disk, in bytes.
 * @returns Bytes of data written, without holes.
 * @throws {ObdError} errors of reading the disk; `NoSpace`, `Io` for the file; the signal's reason.
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
    await nextTurn();
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
  for (let at = 0; at < piece.length; at += HOLE_BYTES) {
    const block = piece.subarray(at, at + HOLE_BYTES);
    if (!block.equals(ZEROES.subarray(0, block.length))) continue;
    written += await writeAll(file, piece.subarray(start, at), offset + start);
    start = at + block.length;
  }
  return written + (await writeAll(file, piece.subarray(start), offset + start));
}

/** A full disk first answers a write with fewer bytes, and the next one with ENOSPC. */
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

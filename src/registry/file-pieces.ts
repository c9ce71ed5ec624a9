/**
 * Reads a local file as a stream of blob bytes, without read-ahead. Each piece is a new buffer, because readers that
 * look ahead keep several.
 */
import type { FileHandle } from 'node:fs/promises';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';

/** Large enough that the cost of calls is small, small enough that a few pieces in flight need little memory. */
const PIECE_BYTES = 256 << 10;

/** @throws {ObdError} `Io`; the signal's reason. The file stays open. */
export async function* piecesOfFile(
  file: FileHandle,
  path: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let offset = 0; ; ) {
    signal?.throwIfAborted();
    const buffer = Buffer.alloc(PIECE_BYTES);
    const length = await readAt(file, path, buffer, offset);
    if (length === 0) return;
    yield buffer.subarray(0, length);
    offset += length;
  }
}

async function readAt(
  file: FileHandle,
  path: string,
  buffer: Uint8Array,
  offset: number,
): Promise<number> {
  try {
    return (await file.read(buffer, 0, buffer.length, offset)).bytesRead;
  } catch (error) {
    const message = `Cannot read "${path}" at ${offset}: ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.Io, message, { path, offset }, error);
  }
}

/** The traces that come with images: from their reads to the blobs that these are fetched from. */
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import { LocalFile } from '../io/local-file.js';
import { type RandomAccessFile, readFully, type StoredRange } from '../io/random-access-file.js';
import type { LowerLayer } from '../layers/lower-layer.js';
import { parseTrace, TRACE_BYTES_MAX, TRACED_READS_MAX } from '../layers/read-trace.js';

/** In the `dir` of a trace layer. */
const TRACE_NAME = 'trace';
/** Longer reads are cut, so that the reader of the ranges can stop in the middle of one. */
const PIECE_BYTES = 1 << 20;
/** The pieces behind them are left out: a trace that names all of a large layer in each read would take minutes. */
const PIECES_MAX = TRACED_READS_MAX;

/**
 * @param trace - The layer in the image config; containerd has unpacked it.
 * @param files - The image's layers, bottom first, as the trace counts them: without tar and compression.
 * @throws {ObdError} `NotFound` if the file is not there; `Corrupt` for one that is no trace, a link, or of another
 *   image; `Io`.
 */
export async function tracedRanges(
  trace: LowerLayer,
  files: readonly RandomAccessFile[],
): Promise<Iterable<StoredRange>> {
  if (!trace.file && !trace.dir) {
    throw new ObdError(
      ErrorCodes.NotFound,
      'Cannot read a trace that has neither "file" nor "dir"',
    );
  }
  const path = trace.file || join(trace.dir!, TRACE_NAME);
  // An image's author made the file. To follow a link onto a disk that this thread serves would wait for this thread.
  const isLink = await lstat(path).then(
    (found) => found.isSymbolicLink(),
    () => false,
  );
  if (isLink) throw corrupt({ label: path }, 0, 'it is a symbolic link');
  const file = LocalFile.open(path);
  try {
    if (file.sizeBytes > TRACE_BYTES_MAX) {
      throw corrupt(file, 0, `${file.sizeBytes} bytes are too many for a trace of reads`);
    }
    const bytes = Buffer.alloc(file.sizeBytes);
    await readFully(file, bytes, 0);
    const reads = parseTrace(bytes, file);
    // Layers that the trace has and the image lacks are passed over, as overlaybd does.
    const ofImage = reads.filter(({ layer }) => layer < files.length);
    const beyond = ofImage.find(
      ({ layer, offset, length }) => offset + length > files[layer]!.sizeBytes,
    );
    if (beyond !== undefined) {
      const { layer, offset } = beyond;
      throw corrupt(
        file,
        0,
        `it reads at ${offset} of layer ${layer + 1}, which is shorter; it belongs to another image`,
      );
    }
    return (function* () {
      let pieces = 0;
      for (const { layer, offset, length } of ofImage) {
        for (let at = 0; at < length; at += PIECE_BYTES) {
          if (++pieces > PIECES_MAX) return;
          const piece = Math.min(PIECE_BYTES, length - at);
          yield* files[layer]!.storedRanges?.(offset + at, piece) ?? [];
        }
      }
    })();
  } finally {
    file.close();
  }
}

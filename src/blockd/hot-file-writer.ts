/** Writes a hot blob to a file, for its upload. */
import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import { type HotSource, writeHotBlob } from '../hot-blob/hot-blob-writer.js';
import type { WrittenBlob } from './worker-messages.js';

/**
 * Half of what publishing may take. The pages of the start are stored here, but those that other starts have added come from the
 * registry, perhaps behind reads of containers.
 */
const WRITE_MS_MAX = 150_000;

/**
 * @param path - Of a new file, which an error removes.
 * @throws {ObdError} `Unavailable` after WRITE_MS_MAX; read errors; system errors.
 */
export async function writeHotFile(
  sources: readonly HotSource[],
  runs: Uint32Array,
  path: string,
): Promise<WrittenBlob> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      for await (const piece of withinLimit(writeHotBlob(sources, runs))) {
        hash.update(piece);
        sizeBytes += piece.length;
        await file.writeFile(piece);
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    await rm(path, { force: true }).catch(() => {});
    throw error;
  }
  return { digest: `sha256:${hash.digest('hex')}`, sizeBytes };
}

/** The pieces that come in time. */
async function* withinLimit<T>(pieces: AsyncGenerator<T>): AsyncGenerator<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const message = `Cannot write a hot blob: its pages have not come within ${WRITE_MS_MAX / 1000} s`;
    timer = setTimeout(() => reject(new ObdError(ErrorCodes.Unavailable, message)), WRITE_MS_MAX);
  });
  try {
    for (;;) {
      const { value, done } = await Promise.race([pieces.next(), late]);
      if (done === true) return;
      yield value;
    }
  } finally {
    clearTimeout(timer);
    // Does nothing until a page that is waited for comes or fails.
    void pieces.return(undefined).catch(() => {});
  }
}

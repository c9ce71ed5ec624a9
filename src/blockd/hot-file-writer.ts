/** Writes a hot blob to a file, for its upload. */
import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { type HotSource, writeHotBlob } from '../hot-blob/hot-blob-writer.js';
import type { WrittenBlob } from './worker-messages.js';

/** @param path - Of a new file, which an error removes. @throws {ObdError} read errors; system errors. */
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
      for await (const piece of writeHotBlob(sources, runs)) {
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

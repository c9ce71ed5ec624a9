/** Replaces a file so that a reader sees the old content or the new one, also after a crash. */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const UNFINISHED = '.new-';

/** Whether a file of this name is what a crash left of replaceFile(). */
export function isUnfinished(name: string): boolean {
  return name.startsWith(UNFINISHED);
}

/**
 * Makes `path` a file that `fill` has filled; it is on the disk when this resolves.
 *
 * @param mode - Of the file, less what the umask takes.
 * @throws system errors as they are, and what `fill` throws; `path` is then as it was.
 */
export async function replaceFile<T>(
  path: string,
  mode: number,
  fill: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const fresh = join(dirname(path), `${UNFINISHED}${randomBytes(8).toString('hex')}`);
  try {
    const file = await open(fresh, 'wx', mode);
    let filled: T;
    try {
      filled = await fill(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
    await syncDirectory(dirname(path));
    return filled;
  } catch (error) {
    // Why it failed matters more.
    await rm(fresh, { force: true }).catch(() => {});
    throw error;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

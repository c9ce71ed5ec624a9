/** Writing a small file so that whoever reads it sees the old content or the new one, also after a crash. */
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';

/**
 * Replaces or makes `path`; it is on the disk when this resolves. For one writer of a path at a time.
 * @param mode - Of the file, whatever the umask adds.
 * @throws {ObdError} `Io`; `path` is then as it was.
 */
export async function replaceFile(path: string, text: string, mode = 0o600): Promise<void> {
  const fresh = `${path}.new`;
  try {
    const file = await open(fresh, 'w', mode);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
    await syncDirectory(dirname(path));
  } catch (cause) {
    await rm(fresh, { force: true }).catch(() => {});
    const message = `Cannot write "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
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

/** The path that a file or directory has, or will have once it is made, without symbolic links. */
import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemCode } from '../errors.js';

/** @param path - Absolute; its last parts may be missing. @throws system errors other than `ENOENT`. */
export async function settledPath(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    return join(await settledPath(dirname(path)), basename(path));
  }
}

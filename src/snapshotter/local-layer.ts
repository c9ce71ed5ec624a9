/**
 * Tells a directory that holds an overlaybd layer from one that holds the files of a plain layer: containerd has
 * unpacked the former's blob, which is a tar of one file.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../errors.js';

export const LAYER_FILE = 'overlaybd.commit';

/** The first bytes of a ZFile, and of a layer that is not compressed. */
const MAGICS = ['ZFile\0\x01', 'LSMT\0\x01\x02'];

/** Whether the directory has this one file in it, and nothing else. */
export async function holdsOverlaybdLayer(directory: string): Promise<boolean> {
  let entries = 0;
  for await (const { name } of await opendir(directory)) {
    entries++;
    if (entries > 1 || name !== LAYER_FILE) return false;
  }
  return entries === 1 && (await hasMagic(join(directory, LAYER_FILE)));
}

async function hasMagic(path: string): Promise<boolean> {
  let file: FileHandle;
  try {
    // A link would lead out of the layer, and obd-blockd would serve what it leads to; a pipe would never open.
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    // A plain layer may have anything of this name.
    if (systemCode(error) === undefined) throw error;
    return false;
  }
  try {
    if (!(await file.stat()).isFile()) return false;
    const head = Buffer.alloc(8);
    await file.read(head, 0, head.length, 0);
    const text = head.toString('latin1');
    return MAGICS.some((magic) => text.startsWith(magic));
  } finally {
    await file.close();
  }
}

/**
 * Tells the directory of an overlaybd layer or a trace from that of a plain layer: the blob of an overlaybd layer or a
 * trace is a tar of one file, which containerd has unpacked.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { systemCode } from '../errors.js';

export const LAYER_FILE = 'overlaybd.commit';

/** The first bytes of a ZFile, and of a layer that is not compressed. */
const MAGICS = ['ZFile\0\x01', 'LSMT\0\x01\x02'];

/** overlaybd's prefetch.cpp: the CRC-32 of "Container Image Trace Format", little-endian. */
const TRACE_MAGIC = '\x20\x18\xef\xc2';

/** Whether the directory has this one file in it, and nothing else. */
export async function holdsOverlaybdLayer(directory: string): Promise<boolean> {
  const name = await onlyEntryOf(directory);
  return name === LAYER_FILE && (await hasMagic(join(directory, name), MAGICS));
}

/** Whether the directory has one file in it, a trace of accesses, and nothing else. */
export async function holdsTrace(directory: string): Promise<boolean> {
  const name = await onlyEntryOf(directory);
  return name !== undefined && (await hasMagic(join(directory, name), [TRACE_MAGIC]));
}

async function onlyEntryOf(directory: string): Promise<string | undefined> {
  let only: string | undefined;
  for await (const { name } of await opendir(directory)) {
    if (only !== undefined) return undefined;
    only = name;
  }
  return only;
}

async function hasMagic(path: string, magics: readonly string[]): Promise<boolean> {
  let file: FileHandle;
  try {
    // obd-blockd would serve the target of a link, outside the layer; a pipe would never open.
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
    return magics.some((magic) => text.startsWith(magic));
  } finally {
    await file.close();
  }
}

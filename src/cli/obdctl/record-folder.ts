/**
 * The folder of a recording. Its name is also the id of the container, so that a later recording can remove what a killed one left.
 *
 *     /tmp/obd-record-XXXXXX/
 *         owner          the process (src/io/process-identity.ts)
 *         config.json    of the container
 *         root/          its root file system is mounted here
 */
import {
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  rmdir,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemCode } from '../../errors.js';
import { mountAt } from '../../image/image-mount.js';
import { ownerState, ownIdentity } from '../../io/process-identity.js';
import { runProgram } from '../../io/run-program.js';

const PREFIX = 'obd-record-';
const UNMOUNT_MS_MAX = 60_000;
/** A removed container lets go of its root file system a moment later. */
const UNMOUNT_TRIES = 20;
const UNMOUNT_PAUSE_MS = 250;

export async function makeRecordFolder(): Promise<string> {
  // As the mount table has it, without links.
  const folder = await mkdtemp(join(await realpath(tmpdir()), PREFIX));
  await writeFile(join(folder, 'owner'), ownIdentity());
  await mkdir(rootIn(folder));
  return folder;
}

/** Where the root file system of the container is mounted. */
export function rootIn(folder: string): string {
  return join(folder, 'root');
}

/** The folders that processes which are gone have left. */
export async function abandonedRecordFolders(): Promise<string[]> {
  const parent = await realpath(tmpdir());
  const abandoned: string[] = [];
  for (const name of await readdir(parent)) {
    if (!name.startsWith(PREFIX)) continue;
    const folder = join(parent, name);
    const about = await lstat(folder).catch(() => undefined);
    // Other users can make such folders, and exchange what is in them.
    if (about?.isDirectory() !== true || about.uid !== process.geteuid?.()) continue;
    const owner = await readFile(join(folder, 'owner'), 'utf8').catch(() => '');
    if (['ended', 'other-boot'].includes(ownerState(owner))) abandoned.push(folder);
  }
  return abandoned;
}

/**
 * Unmounts the root file system and removes the folder.
 *
 * @returns Whether it is gone. A folder whose root stays mounted is left alone.
 */
export async function removeRecordFolder(folder: string): Promise<boolean> {
  const root = rootIn(folder);
  await unmount(root);
  try {
    // No `rm -r`: if it is still mounted, that would empty it.
    await rmdir(root);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') return false;
  }
  await rm(folder, { recursive: true, force: true });
  return true;
}

async function unmount(root: string): Promise<void> {
  for (let tries = 1; tries <= UNMOUNT_TRIES; tries++) {
    if ((await mountAt(root)) === undefined) return;
    const { status } = await runProgram('umount', [root], UNMOUNT_MS_MAX);
    if (status !== 0) await sleep(UNMOUNT_PAUSE_MS);
  }
}

/** Loop devices: which file is behind which, and taking one away. */
import { readdir, readFile } from 'node:fs/promises';
import { SECTOR_BYTES } from '../../io/block-sizes.js';
import { outputOf } from '../../io/run-program.js';
import { claimDevice, type WithoutReads } from '../device-users.js';

/** losetup takes milliseconds; this is for a kernel that does not answer. */
const PROGRAM_MS = 10_000;

export interface LoopDevice {
  /** e.g. /dev/loop3 */
  readonly path: string;
  readonly backingFile: string;
}

/** The loop devices that have a backing file, and are not about to go with their last user. */
export async function listLoops(): Promise<LoopDevice[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const found = await Promise.all(
    names.map(async (name) => ({
      path: `/dev/${name}`,
      backingFile: (await isLeaving(name)) ? undefined : await backingFileOf(name),
    })),
  );
  return found.filter((loop): loop is LoopDevice => loop.backingFile !== undefined);
}

/** Whole sectors: bytes of the file past the last one are not part of the device. */
export function sectorsOf(sizeBytes: number): number {
  return Math.floor(sizeBytes / SECTOR_BYTES);
}

export async function loopSectors({ path }: LoopDevice): Promise<number> {
  return Number(await readFile(`/sys/block/${nameOf(path)}/size`, 'utf8'));
}

/**
 * Frees a loop device, if it still has `backingFile`. While this holds the device exclusively no process can mount it,
 * so a device that is open, or mounted in any namespace, stays unchanged.
 *
 * @param withoutReads - Used when the device has no user any more: the kernel waits for the reads in flight.
 * @throws {ObdError} `Busy`, `Io`; `Host` if this host lacks losetup.
 */
export async function releaseLoop(
  { path, backingFile }: LoopDevice,
  withoutReads: WithoutReads,
): Promise<void> {
  while ((await backingFileOf(nameOf(path))) === backingFile) {
    const claim = await claimDevice(path, withoutReads);
    try {
      // A program that another thread was starting may have been the last to close the device, a moment later.
      if ((await backingFileOf(nameOf(path))) !== backingFile) return;
      // The kernel only marks the device, as we have it open. It goes when we, or a process that opened it just now,
      // close it. Closing waits for the reads in flight.
      await withoutReads(async () => {
        await outputOf('losetup', ['--detach', path], PROGRAM_MS);
        await claim.close();
      });
    } finally {
      await claim.close();
    }
  }
}

/**
 * Frees a dead loop device, if it still has `backingFile`. A device in use goes with its last user, and is no longer
 * listed.
 *
 * @throws {ObdError} `Io`; `Host` if this host lacks losetup.
 */
export async function abandonLoop({ path, backingFile }: LoopDevice): Promise<void> {
  if ((await backingFileOf(nameOf(path))) !== backingFile) return;
  await outputOf('losetup', ['--detach', path], PROGRAM_MS);
}

function nameOf(path: string): string {
  return path.slice('/dev/'.length);
}

/** Whether it was detached while in use. */
async function isLeaving(name: string): Promise<boolean> {
  const text = await readFile(`/sys/block/${name}/loop/autoclear`, 'utf8').catch(() => '0');
  return text.trim() === '1';
}

async function backingFileOf(name: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8')).replace(/\n$/, '');
  } catch {
    // Nothing behind it, or no such device.
    return undefined;
  }
}

/** Loop devices: which file is behind which, and taking one away. */
import { readdir, readFile } from 'node:fs/promises';
import { outputOf } from '../../io/run-program.js';
import { claimDevice, type WithoutReads } from '../device-users.js';

/** losetup takes milliseconds; this is for a kernel that does not answer. */
const PROGRAM_MS = 10_000;
const SECTOR_BYTES = 512;

export interface LoopDevice {
  /** e.g. /dev/loop3 */
  readonly path: string;
  readonly backingFile: string;
}

/** The loop devices that have a file behind them, and are not to go with their last user. */
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

/** Whole sectors: what is behind the last one of the file is not of the device. */
export function sectorsOf(sizeBytes: number): number {
  return Math.floor(sizeBytes / SECTOR_BYTES);
}

export async function loopSectors({ path }: LoopDevice): Promise<number> {
  return Number(await readFile(`/sys/block/${nameOf(path)}/size`, 'utf8'));
}

/**
 * Frees a loop device, if it is still the one of `backingFile`. While this holds the device exclusively
 * nobody can mount it, so one that is mounted, in whichever namespace, or open is left as it is.
 *
 * @param withoutReads - Used when nobody uses the device any more: the kernel waits for the reads in flight.
 * @throws {ObdError} `Busy`, `Io`; `Host` if this host lacks losetup.
 */
export async function releaseLoop(
  { path, backingFile }: LoopDevice,
  withoutReads: WithoutReads,
): Promise<void> {
  while ((await backingFileOf(nameOf(path))) === backingFile) {
    const claim = await claimDevice(path, withoutReads);
    try {
      // A program that another thread was starting had the device open for a moment longer, and was the last to.
      if ((await backingFileOf(nameOf(path))) !== backingFile) return;
      // The kernel only marks it, as we have it open; it goes when we, or whoever opened it just now, closes it. Closing
      // it waits for the reads in flight.
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
 * Frees a loop device that answers nothing any more, if it is still the one of `backingFile`. One that is in use goes
 * with its last user, and is listed no more.
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

/** Whether it was detached while somebody used it. */
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

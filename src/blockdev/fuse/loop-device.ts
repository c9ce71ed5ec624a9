/**
 * Loop devices: a file of this host as a read-only block device.
 *
 * They read the file past the page cache (direct I/O), because what is cached above the device need not be
 * cached again below it; over FUSE it was also faster at depth (docs/benchmarks.md). The sector size stays 512
 * bytes, since a disk need not be whole pages.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { outputOf } from '../../io/run-program.js';

/** A scan by udev or blkid holds a new device for some milliseconds. */
const RELEASE_MS = 500;
const POLL_MS = 10;
/** losetup takes milliseconds; this is for a kernel that does not answer. */
const PROGRAM_MS = 10_000;

export interface LoopDevice {
  /** e.g. /dev/loop3 */
  readonly path: string;
  readonly backingFile: string;
}

/**
 * Finds a free loop device and puts `file` behind it; two who do so at once get two devices.
 *
 * @returns Its path. @throws {ObdError} `Host` if there are no loop devices here, `Io`.
 */
export async function attachLoop(file: string): Promise<string> {
  const args = ['--find', '--show', '--read-only', '--direct-io=on', file];
  try {
    return (await outputOf('losetup', args, PROGRAM_MS)).trim();
  } catch (cause) {
    if (!(cause instanceof ObdError) || cause.code !== ErrorCodes.Io) throw cause;
    if (!/cannot find an unused loop device|loop-control/.test(cause.message)) throw cause;
    throw new ObdError(
      ErrorCodes.Host,
      `Cannot make a loop device: ${cause.message}; it takes root and the kernel's loop module (\`modprobe loop\`)`,
      { path: file },
      cause,
    );
  }
}

/** The loop devices that have a file behind them. */
export async function listLoops(): Promise<LoopDevice[]> {
  const names = (await readdir('/sys/block')).filter((name) => name.startsWith('loop'));
  const found = await Promise.all(
    names.map(async (name) => ({ path: `/dev/${name}`, backingFile: await backingFileOf(name) })),
  );
  return found.filter((loop): loop is LoopDevice => loop.backingFile !== undefined);
}

/**
 * Frees a loop device, if it is still the one of `backingFile`. While this holds the device exclusively
 * nobody can mount it, so one that is mounted, in whichever namespace, or open is left as it is.
 *
 * @throws {ObdError} `Busy`, `Io`.
 */
export async function releaseLoop({ path, backingFile }: LoopDevice): Promise<void> {
  const name = path.slice('/dev/'.length);
  const deadline = performance.now() + RELEASE_MS;
  for (;;) {
    if ((await backingFileOf(name)) !== backingFile) return;
    const problem = await tryRelease(path);
    if (problem === 'mounted' || (problem !== undefined && performance.now() > deadline)) {
      throw new ObdError(
        ErrorCodes.Busy,
        `Cannot detach ${path}: it is ${problem}; unmount it, or end who uses it, and try again`,
        { path },
      );
    }
    await sleep(POLL_MS);
  }
}

/** @returns Who is in the way, or undefined if the device is going. */
async function tryRelease(path: string): Promise<string | undefined> {
  let exclusive: FileHandle;
  try {
    exclusive = await open(path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    if (systemCode(error) === 'EBUSY') return 'mounted';
    if (systemCode(error) === 'ENXIO' || systemCode(error) === 'ENOENT') return undefined;
    throw new ObdError(ErrorCodes.Io, `Cannot open ${path}: ${messageOf(error)}`, { path }, error);
  }
  try {
    const user = await openerOf(path);
    if (user !== undefined) return `open in process ${user}`;
    // The kernel only marks it, as we have it open; it goes when we close it.
    await outputOf('losetup', ['--detach', path], PROGRAM_MS);
    return undefined;
  } finally {
    await exclusive.close();
  }
}

/** A process, other than this one, that has the device open. */
async function openerOf(path: string): Promise<string | undefined> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || pid === String(process.pid)) continue;
    // Both can be gone by the time they are looked at.
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const descriptor of descriptors) {
      const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => undefined);
      if (target === path) return pid;
    }
  }
  return undefined;
}

async function backingFileOf(name: string): Promise<string | undefined> {
  try {
    return (await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8')).replace(/\n$/, '');
  } catch {
    // Nothing behind it, or no such device.
    return undefined;
  }
}

/**
 * What a daemon that died left of its FuseTransport: nbdfuse processes that have lost their server, their
 * mounts, and loop devices on them, all of which answer EIO.
 *
 * Only what is under the transport's own directory is touched, and nothing of it that is still mounted or
 * open: taking that away would not help who uses it. It is reported, as is what cannot be taken away for another
 * reason, and the next call will find it.
 */
import { readdir, readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError, systemCode } from '../../errors.js';
import { FILE_NAME } from './fuse-transport.js';
import { listLoops, releaseLoop } from './loop-device.js';
import { unmountFuse } from './nbdfuse-process.js';

/** After its mount is gone, nbdfuse ends by itself at once, and at the latest when it is killed. */
const END_MS = 1_000;
const KILLED_MS = 1_000;
const POLL_MS = 10;

/** Ids of devices. */
export interface Debris {
  readonly cleared: readonly string[];
  readonly inUse: readonly string[];
}

/**
 * Call it while no daemon uses `directory`, before attaching.
 *
 * @throws {ObdError} `Host` if this host lacks losetup or umount; system errors of the directory.
 */
export async function clearFuseDebris(directory: string): Promise<Debris> {
  const cleared: string[] = [];
  const inUse: string[] = [];
  const root = await realpath(directory).catch(() => undefined);
  if (root === undefined) return { cleared, inUse };
  const loops = await listLoops();
  for (const id of await readdir(root)) {
    const home = join(root, id);
    const mountPoint = join(home, 'mount');
    const backingFile = join(mountPoint, FILE_NAME);
    try {
      for (const loop of loops) if (loop.backingFile === backingFile) await releaseLoop(loop);
      await unmountFuse(mountPoint);
    } catch (error) {
      // Whatever it is, it must not keep this host from getting new devices.
      if (!(error instanceof ObdError) || error.code === ErrorCodes.Host) throw error;
      inUse.push(id);
      continue;
    }
    if (!(await endProcess(join(home, 'pid'), backingFile))) {
      inUse.push(id);
      continue;
    }
    await rm(home, { recursive: true, force: true });
    cleared.push(id);
  }
  return { cleared, inUse };
}

/**
 * Ends the process in `pidFile` if it still is the nbdfuse of that file, and not another of the same id.
 * @returns False if it hangs in the kernel, where no signal reaches it.
 */
async function endProcess(pidFile: string, file: string): Promise<boolean> {
  const pid = Number.parseInt(await readFile(pidFile, 'utf8').catch(() => ''), 10);
  if (!(pid > 1)) return true;
  const startedMs = performance.now();
  while ((await commandOf(pid)).includes(file)) {
    const waitedMs = performance.now() - startedMs;
    if (waitedMs > END_MS + KILLED_MS) return false;
    if (waitedMs > END_MS) kill(pid);
    await sleep(POLL_MS);
  }
  return true;
}

async function commandOf(pid: number): Promise<readonly string[]> {
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return line.split('\0');
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}

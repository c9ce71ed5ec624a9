/**
 * Whether a block device is in use: mounted, or open in a process. The kernel itself takes most devices away under
 * their users, so a transport asks here first.
 *
 * A claim (O_EXCL) fails while the device is mounted in any namespace, is part of another device, or swapped on; and
 * while it is held no other process can mount it. Processes that merely have it open are found in /proc. Between these
 * two checks and the caller's next step the device can still be opened, but not mounted.
 *
 * The links in /proc are read on this thread, SLICE_MS at a time: reading one takes less than handing it to another
 * thread, and needs nothing of the file system behind it, which may hang. Lists are read on another thread, as a process
 * may have 100,000 descriptors. Some 25 ms for 147 processes with 530 descriptors; 7 ms if all were read on this thread.
 */
import { constants, readlinkSync } from 'node:fs';
import { type FileHandle, open, readdir } from 'node:fs/promises';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import { describeUsers, namespacesWith } from '../io/mount-users.js';
import { blockedIn } from '../io/process-state.js';
import { runProgram } from '../io/run-program.js';

/** A scan by udev or blkid holds a new device for some milliseconds. */
const SCAN_MS = 1000;
const POLL_MS = 25;
/**
 * A program that another thread starts has a copy of our own claim from its fork to its exec: a device that is claimed
 * for no longer than this is not in use.
 */
const FORK_MS = 200;
/** Opening takes microseconds, unless the last user is closing the device: then it waits for reads in flight. */
const STALL_MS = 500;
/** The probe ends when the device can be opened. */
const PROBE_MS = 30_000;
/** How long a slice may block the other work of this thread. */
const SLICE_MS = 1;

/** Runs the work; until it settles no read of the device waits for bytes. */
export type WithoutReads = <T>(work: () => Promise<T>) => Promise<T>;

/**
 * Claims the device for its caller, which closes the handle when the device may be used again or is gone. Waits up to
 * SCAN_MS for processes that merely have it open.
 *
 * @param withoutReads - Used while the last user of the device is closing it: the kernel then blocks every open until
 *   the reads in flight are answered, such as those of processes that were killed.
 * @throws {ObdError} `Busy` if it is in use, `Io`.
 */
export async function claimDevice(path: string, withoutReads: WithoutReads): Promise<FileHandle> {
  const deadline = performance.now() + SCAN_MS;
  for (;;) {
    const claim = await openExclusively(path, withoutReads);
    const user = await findUser(path, claim.fd).catch(async (error: unknown) => {
      await claim.close();
      throw error;
    });
    if (user === undefined) return claim;
    await claim.close();
    if (performance.now() > deadline) throw busy(path, `process ${user} has it open`);
    await sleep(POLL_MS);
  }
}

async function openExclusively(path: string, withoutReads: WithoutReads): Promise<FileHandle> {
  const deadline = performance.now() + FORK_MS;
  for (;;) {
    try {
      const opening = open(path, constants.O_RDONLY | constants.O_EXCL);
      // The race reports the rejection.
      opening.catch(() => {});
      for (;;) {
        const stall = sleep(STALL_MS, undefined, { ref: false });
        const opened = await Promise.race([opening, stall]);
        if (opened !== undefined) return opened;
        if (await isClosing(path)) return await withoutReads(() => opening);
      }
    } catch (cause) {
      if (systemCode(cause) !== 'EBUSY') {
        const message = `Cannot open "${path}": ${messageOf(cause)}`;
        throw new ObdError(ErrorCodes.Io, message, { path }, cause);
      }
      if (performance.now() > deadline) throw busy(path, await whyBusy(path));
    }
    await sleep(POLL_MS);
  }
}

/**
 * Whether the last user of the device is closing it, and waits for its reads in flight: then the kernel blocks each
 * open of the device in a function named bdev_* or blkdev_*. Probes with another process, as a thread of this one may be
 * slow to open for other reasons.
 */
async function isClosing(path: string): Promise<boolean> {
  let pid = 0;
  const args = [`if=${path}`, 'of=/dev/null', 'count=0', 'status=none'];
  const opening = runProgram('dd', args, PROBE_MS, (started) => {
    pid = started;
  });
  const opened = opening.then(
    () => true,
    () => true,
  );
  const stall = sleep(STALL_MS, false, { ref: false });
  if (await Promise.race([opened, stall])) return false;
  return /^(bdev|blkdev)_/.test((await blockedIn(pid)) ?? '');
}

/** Why a device cannot be opened exclusively. */
async function whyBusy(path: string): Promise<string> {
  const users = await namespacesWith(path);
  if (users.length === 0) return 'it is mounted, or another device is on it';
  const places = users.map(
    (user) => `at "${user.target}" in the mount namespace of ${describeUsers([user])}`,
  );
  return `it is mounted ${places.join(', and ')}`;
}

function busy(path: string, why: string): ObdError {
  return new ObdError(ErrorCodes.Busy, `Cannot detach "${path}": ${why}`, { path });
}

/** The id of a process that has the device open, other than by our `ownFd`. */
async function findUser(path: string, ownFd: number): Promise<string | undefined> {
  const own = `/proc/${process.pid}/fd/${ownFd}`;
  let sliceEnd = performance.now() + SLICE_MS;
  for (const pid of await namesIn('/proc')) {
    if (!/^[0-9]+$/.test(pid)) continue;
    for (const fd of await namesIn(`/proc/${pid}/fd`)) {
      const link = `/proc/${pid}/fd/${fd}`;
      if (link !== own && targetOf(link) === path) return pid;
      if (performance.now() < sliceEnd) continue;
      await nextTurn();
      sliceEnd = performance.now() + SLICE_MS;
    }
  }
  return undefined;
}

/**
 * Empty for a process that is gone, or that we may not read. Not by opendir(): that asks by lstat() for the type of a
 * process which ends at that moment, and for the error drops the others that it had read.
 */
async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    return skipped(cause) ?? [];
  }
}

function targetOf(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch (cause) {
    return skipped(cause);
  }
}

/** @throws {ObdError} `Io`, unless the process or descriptor is gone or belongs to another user. */
function skipped(cause: unknown): undefined {
  if (['ENOENT', 'ESRCH', 'EACCES'].includes(systemCode(cause) ?? '')) return undefined;
  const message = `Cannot find out who has a device open: ${messageOf(cause)}`;
  throw new ObdError(ErrorCodes.Io, message, {}, cause);
}

/**
 * Whether somebody uses a block device: has it mounted, or open. The kernel itself takes most devices away under
 * their users, so a transport asks here first.
 *
 * A claim (O_EXCL) fails while the device is mounted in any namespace, is part of another device, or swapped on; and
 * while it is held nobody else can mount it. Who merely has it open is found in /proc. Between the two and the caller's
 * next step the device can still be opened, but not mounted.
 *
 * The links in /proc are read on this thread, SLICE_MS at a time: each takes less than handing it to another thread does,
 * and needs nothing of the file system behind it, which may hang. Lists are read on another: a process may have 100,000
 * descriptors. Some 25 ms for 147 processes with 530 descriptors, 7 if all were read on this thread.
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
/** It ends when the device can be opened. */
const PROBE_MS = 30_000;
/** How long the other work of this thread waits for us at a time. */
const SLICE_MS = 1;

/** Runs the work, and has no read of the device wait meanwhile. */
export type WithoutReads = <T>(work: () => Promise<T>) => Promise<T>;

/**
 * Claims the device for its caller, who closes the handle when it may be used again or is gone. Who merely has it open is
 * waited for, for SCAN_MS.
 *
 * @param withoutReads - Used where the last user of the device is closing it, and the kernel lets nobody open it before
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
      // Whatever it rejects with is for the race to see.
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
 * Whether the last user of the device is closing it, and waits for its reads in flight: then the kernel keeps whoever
 * opens it in its function of that name. Another process is looked at, as a thread of this one may be slow to open for
 * other reasons.
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

/** Of a device that cannot be opened exclusively. */
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

/** The id of a process that has the device open otherwise than by `ownFd`. */
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
 * None of a process that is gone, or not ours to look into. Not by opendir(): that asks by lstat() for the type of a
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

/** @throws {ObdError} `Io`, unless the process or descriptor is gone or of somebody else. */
function skipped(cause: unknown): undefined {
  if (['ENOENT', 'ESRCH', 'EACCES'].includes(systemCode(cause) ?? '')) return undefined;
  const message = `Cannot find out who has a device open: ${messageOf(cause)}`;
  throw new ObdError(ErrorCodes.Io, message, {}, cause);
}

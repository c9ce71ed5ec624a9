/**
 * Mounting and unmounting the file system of an image's device, by mount(8) and umount(8).
 *
 * Read-only, and nothing more: the runtime's mount on top restricts set-user-id files and device nodes, exactly as with
 * a layer that is a directory. Only root reaches the files here, as a directory above is closed to other users.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import { type MountPoint, readMountTable } from '../io/mount-table.js';
import { describeUsers, isMountedElsewhere, usersBelow } from '../io/mount-users.js';
import { blockedIn } from '../io/process-state.js';
import { type Finished, runProgram } from '../io/run-program.js';

/** Longer than one fetch: reading a superblock from a slow registry fails with EIO before this. */
const MOUNT_TIMEOUT_MS = 120_000;
const UNMOUNT_TIMEOUT_MS = 30_000;
/** A normal unmount takes milliseconds. */
const STALL_MS = 1_000;
/** The device has more reads in flight than its server handles at a time, so ending them takes several calls. */
const STALL_TURN_MS = 250;
const KILLED_TURN_MS = 100;
const PROBE_TIMEOUT_MS = 90_000;

/** Stacked mounts at one place come from crashes, and there are not many in a row. */
const STACKED_MOUNTS_MAX = 16;

/** The file systems of overlaybd images, and the mount options that each needs. */
const MOUNT_OPTIONS: Readonly<Record<string, string>> = {
  ext4: 'ro,noatime',
  // nouuid: we and another program may mount the same image at the same time.
  xfs: 'ro,noatime,nouuid',
  erofs: 'ro,noatime',
};

/** Magic numbers in the first block, in hexadecimal (linux/magic.h, fs/xfs/libxfs/xfs_format.h). */
const MAGICS = [
  { fileSystem: 'ext4', at: 1024 + 56, bytes: '53ef' },
  { fileSystem: 'erofs', at: 1024, bytes: 'e2e1f5e0' },
  { fileSystem: 'xfs', at: 0, bytes: '58465342' },
] as const;
const SUPERBLOCK_BYTES = 4096;

export function isMountable(fileSystem: string): boolean {
  return Object.hasOwn(MOUNT_OPTIONS, fileSystem);
}

/** The topmost mount at a place. */
export async function mountAt(target: string): Promise<MountPoint | undefined> {
  return (await readMountTable()).findLast((mount) => mount.target === target);
}

/**
 * Mounts a device with the file system of its first block: an image's annotations may be wrong.
 *
 * @throws {ObdError} `Io` with the message of mount(8), for a device that cannot be read, or for another file system.
 */
export async function mountImage(device: string, target: string): Promise<void> {
  const fileSystem = fileSystemIn(await firstBlock(device));
  const options = MOUNT_OPTIONS[fileSystem ?? ''];
  if (fileSystem === undefined || options === undefined) {
    const found = `Cannot mount ${device}: it begins with no file system of type ${Object.keys(MOUNT_OPTIONS).join(', ')}; if its image could not be read, the log of obd-blockd says why`;
    throw new ObdError(ErrorCodes.Io, found, { path: device });
  }
  const args = ['-t', fileSystem, '-o', options, '--', device, target];
  const { status, stderr } = await runProgram('mount', args, MOUNT_TIMEOUT_MS);
  if (status === 0) return;
  // Later lines advise to read the kernel's log, which has less than the daemon's.
  const [said] = stderr.split('\n');
  const found = `Cannot mount ${device} on "${target}": ${said}; if its image could not be read, the log of obd-blockd says why`;
  throw new ObdError(ErrorCodes.Io, found, { path: device });
}

/** The file system whose superblock is in a disk's first 4 KiB; undefined for none that can be mounted. */
export function fileSystemIn(block: Uint8Array): string | undefined {
  const bytes = Buffer.from(block);
  return MAGICS.find(
    ({ at, bytes: magic }) => bytes.toString('hex', at, at + magic.length / 2) === magic,
  )?.fileSystem;
}

/** Read by a process: while its registry is unavailable, the device would block a thread of ours. */
async function firstBlock(device: string): Promise<Buffer> {
  const args = ['-A', 'n', '-v', '-t', 'x1', '-N', `${SUPERBLOCK_BYTES}`, '--', device];
  const { status, stdout, stderr } = await runProgram('od', args, MOUNT_TIMEOUT_MS);
  if (status === 0) return Buffer.from(stdout.replace(/\s/g, ''), 'hex');
  const found = `Cannot read the file system of ${device}: ${stderr}; the log of obd-blockd says why`;
  throw new ObdError(ErrorCodes.Io, found, { path: device });
}

export interface UnmountOptions {
  /** Detaches a mount in use, too: the kernel then removes it after its last user. */
  readonly lazily: boolean;
  /**
   * Fails the reads of the device that wait for a registry. Called only while the kernel keeps the unmount waiting for
   * them, after the last user of the mount has gone or has been killed, and while the device has no other mount.
   */
  readonly endReads?: () => Promise<void>;
}

/**
 * Unmounts all mounts at a place; there may be none.
 *
 * @throws {ObdError} `Busy` for a mount in use, naming the processes that have files of it open; `Io`.
 */
export async function unmountAll(
  target: string,
  { lazily, endReads = async () => {} }: UnmountOptions,
): Promise<void> {
  const deadline = performance.now() + UNMOUNT_TIMEOUT_MS;
  for (let turn = 0; turn < STACKED_MOUNTS_MAX; ) {
    if ((await mountAt(target)) === undefined) return;
    const args = [...(lazily ? ['--lazy'] : []), '--', target];
    const { status, stderr } = await untilUnmounted(target, args, endReads);
    if (status === 0 || /not mounted/.test(stderr)) {
      turn++;
      continue;
    }
    if (!/busy/.test(stderr)) {
      throw new ObdError(ErrorCodes.Io, `Cannot unmount "${target}": ${stderr}`, { path: target });
    }
    const { users, areKilled } = await usersBelow(target);
    // A process that is killed during a read exits when the read ends. Another mount may have live readers.
    if (areKilled && performance.now() < deadline) {
      const device = (await mountAt(target))?.source;
      if (device !== undefined && !(await isMountedElsewhere(device, target))) {
        await endReads().catch(() => {});
        await sleep(KILLED_TURN_MS);
        continue;
      }
    }
    const who = users.length > 0 ? describeUsers(users) : 'another mount or device';
    const message = `Cannot unmount "${target}": it is in use by ${who}`;
    throw new ObdError(ErrorCodes.Busy, message, { path: target });
  }
  const found = `Cannot unmount "${target}": there are more than ${STACKED_MOUNTS_MAX} mounts`;
  throw new ObdError(ErrorCodes.Io, found, { path: target });
}

/**
 * Runs umount(8). While it hangs in the kernel although the mount is gone, calls endReads() repeatedly. In that state
 * umount is the last user, shuts the file system down and waits for reads that no process needs. It does not wait while
 * the file system has another mount in any namespace, or is below a container's overlay.
 */
async function untilUnmounted(
  target: string,
  args: readonly string[],
  endReads: () => Promise<void>,
): Promise<Finished> {
  const device = (await mountAt(target))?.source;
  let pid = 0;
  const unmounting = runProgram('umount', args, UNMOUNT_TIMEOUT_MS, (started) => {
    pid = started;
  });
  // Only the race below handles a rejection.
  unmounting.catch(() => {});
  for (let waitMs = STALL_MS; ; waitMs = STALL_TURN_MS) {
    const timer = sleep(waitMs, undefined, { ref: false });
    const finished = await Promise.race([unmounting, timer]);
    if (finished !== undefined) return finished;
    const isGone = (await mountAt(target))?.source !== device;
    // A daemon that does not run cannot end reads; UNMOUNT_TIMEOUT_MS bounds the unmount.
    if (isGone && (await blockedIn(pid)) !== undefined) await endReads().catch(() => {});
  }
}

/** Whether a device still answers: reads its first block with O_DIRECT, as the page cache may hold it. */
export async function deviceAnswers(device: string): Promise<boolean> {
  const args = [`if=${device}`, 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct'];
  const { status, stderr } = await runProgram('dd', args, PROBE_TIMEOUT_MS);
  return status === 0 && /\b4096 bytes/.test(stderr);
}

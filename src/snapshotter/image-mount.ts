/**
 * Mounting and unmounting the file system of an image's device, by mount(8) and umount(8).
 *
 * Read-only, and nothing more: what a container may do with set-user-id files and device nodes is for the mount that
 * its runtime makes on top, exactly as with a layer that is a directory. Whoever is not root cannot get at the files here,
 * as a directory above is closed to them.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { type MountPoint, readMountTable } from '../io/mount-table.js';
import { runProgram } from '../io/run-program.js';

/** Reading a superblock through a slow registry takes as long as one fetch may; then the device has answered EIO. */
const MOUNT_TIMEOUT_MS = 120_000;
const UNMOUNT_TIMEOUT_MS = 30_000;
const PROBE_TIMEOUT_MS = 90_000;

/** Mounts upon mounts at one place come from crashes, and there are not many of those in a row. */
const STACKED_MOUNTS_MAX = 16;

/** The file systems that overlaybd images are made with, and what the kernel needs to be told to mount one. */
const MOUNT_OPTIONS: Readonly<Record<string, string>> = {
  ext4: 'ro,noatime',
  // The same image may be mounted twice, by us and by somebody else.
  xfs: 'ro,noatime,nouuid',
  erofs: 'ro,noatime',
};

export const DEFAULT_FILE_SYSTEM = 'ext4';

export function isMountable(fileSystem: string): boolean {
  return Object.hasOwn(MOUNT_OPTIONS, fileSystem);
}

/** The topmost mount at a place. */
export async function mountAt(target: string): Promise<MountPoint | undefined> {
  return (await readMountTable()).findLast((mount) => mount.target === target);
}

/** @throws {ObdError} `Io` with what mount(8) said. */
export async function mountImage(
  device: string,
  fileSystem: string,
  target: string,
): Promise<void> {
  const options = MOUNT_OPTIONS[fileSystem];
  if (options === undefined) throw new TypeError(`${fileSystem} is not mountable`);
  const args = ['-t', fileSystem, '-o', options, '--', device, target];
  const { status, stderr } = await runProgram('mount', args, MOUNT_TIMEOUT_MS);
  if (status === 0) return;
  // What follows the first line is advice to read the kernel's log, which knows less than the daemon's.
  const [said] = stderr.split('\n');
  const found = `Cannot mount ${device} on "${target}": ${said}; if its image could not be read, the log of obd-blockd says why`;
  throw new ObdError(ErrorCodes.Io, found, { path: device });
}

/**
 * Takes away whatever is mounted at a place; nothing there is fine.
 *
 * @param lazily - Also if it is in use: it then goes when nobody uses it any more.
 * @throws {ObdError} `Busy` for one in use, `Io`.
 */
export async function unmountAll(target: string, { lazily }: { lazily: boolean }): Promise<void> {
  for (let turn = 0; turn < STACKED_MOUNTS_MAX; turn++) {
    if ((await mountAt(target)) === undefined) return;
    const args = [...(lazily ? ['--lazy'] : []), '--', target];
    const { status, stderr } = await runProgram('umount', args, UNMOUNT_TIMEOUT_MS);
    if (status === 0 || /not mounted/.test(stderr)) continue;
    const code = /busy/.test(stderr) ? ErrorCodes.Busy : ErrorCodes.Io;
    throw new ObdError(code, `Cannot unmount "${target}": ${stderr}`, { path: target });
  }
  const found = `Cannot unmount "${target}": there are more than ${STACKED_MOUNTS_MAX} mounts`;
  throw new ObdError(ErrorCodes.Io, found, { path: target });
}

/** Whether a device still answers: a read of its first block, past the page cache, which may know it by heart. */
export async function deviceAnswers(device: string): Promise<boolean> {
  const args = [`if=${device}`, 'of=/dev/null', 'bs=4096', 'count=1', 'iflag=direct'];
  const { status, stderr } = await runProgram('dd', args, PROBE_TIMEOUT_MS);
  return status === 0 && /\b4096 bytes/.test(stderr);
}

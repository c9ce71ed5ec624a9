/**
 * Whether somebody uses a block device: has it mounted, or open. The kernel itself takes most devices away under
 * their users, so a transport asks here first.
 *
 * A claim (O_EXCL) fails while the device is mounted in any namespace, is part of another device, or swapped on; and
 * while it is held nobody else can mount it. Who merely has it open is found in /proc, which takes a millisecond for a
 * hundred processes. Between the two and the caller's next step the device can still be opened, but not mounted.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, readlink } from 'node:fs/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

/**
 * Claims the device for its caller, who closes the handle when it may be used again or is gone.
 * @throws {ObdError} `Busy` if it is in use, `Io`.
 */
export async function claimDevice(path: string): Promise<FileHandle> {
  let claim: FileHandle;
  try {
    claim = await open(path, constants.O_RDONLY | constants.O_EXCL);
  } catch (cause) {
    if (systemCode(cause) === 'EBUSY')
      throw busy(path, 'it is mounted, or another device is on it');
    const message = `Cannot open "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
  }
  try {
    const user = await findUser(path, claim.fd);
    if (user !== undefined) throw busy(path, `process ${user} has it open`);
    return claim;
  } catch (error) {
    await claim.close();
    throw error;
  }
}

function busy(path: string, why: string): ObdError {
  return new ObdError(ErrorCodes.Busy, `Cannot detach "${path}": ${why}`, { path });
}

/** The id of a process that has the device open otherwise than by `ownFd`. */
async function findUser(path: string, ownFd: number): Promise<string | undefined> {
  const own = String(process.pid);
  for (const pid of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(pid)) continue;
    const folder = `/proc/${pid}/fd`;
    // Processes and descriptors come and go while we look.
    for (const fd of await readdir(folder).catch(() => [])) {
      if (pid === own && fd === String(ownFd)) continue;
      if ((await readlink(`${folder}/${fd}`).catch(() => '')) === path) return pid;
    }
  }
  return undefined;
}

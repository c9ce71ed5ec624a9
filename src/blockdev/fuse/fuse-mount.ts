/**
 * Takes away the mount of a FUSE file that an earlier version made: its file lay at its path, for backups to read. Now
 * the file is in no mount namespace (native/fuse-file), and goes with its loop device.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../../errors.js';
import { readMountTable } from '../../io/mount-table.js';
import { outputOf } from '../../io/run-program.js';

/** A loop device closes its file a moment after it is gone. */
const BUSY_MS = 2_000;
/** umount takes milliseconds; this is for a kernel that does not answer. */
const UMOUNT_MS = 10_000;
const POLL_MS = 10;

/**
 * Takes away what is mounted on the file, if something is.
 * @throws {ObdError} `Busy` if it stays open, `Io`; `Host` if this host lacks umount.
 */
export async function unmountFile(file: string): Promise<void> {
  const deadline = performance.now() + BUSY_MS;
  while ((await readMountTable()).some(({ target }) => target === file)) {
    try {
      await outputOf('umount', ['--no-canonicalize', '--internal-only', file], UMOUNT_MS);
    } catch (error) {
      if (error instanceof ObdError && error.code === ErrorCodes.Host) throw error;
      if (performance.now() > deadline) {
        const code = /busy/.test(String(error)) ? ErrorCodes.Busy : ErrorCodes.Io;
        const message = `Cannot unmount "${file}": ${error}; end who has it open`;
        throw new ObdError(code, message, { path: file }, error);
      }
      await sleep(POLL_MS);
    }
  }
}

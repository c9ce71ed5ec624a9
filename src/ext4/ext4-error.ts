/**
 * What this room says when stored structures break a rule of ext4: every complaint names the inode, block
 * or group it is about.
 */
import { ErrorCodes, ObdError } from '../errors.js';

/** `where` is "inode 12", "block 99", "group 3" or "superblock"; `found` is what is wrong with it. */
export function damaged(where: string, found: string): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot use the ext4 file system: ${where}: ${found}`);
}

/** Well formed, and more than this builder does. */
export function beyond(where: string, found: string): ObdError {
  return new ObdError(
    ErrorCodes.Unsupported,
    `Cannot use the ext4 file system: ${where}: ${found}`,
  );
}

export function noSpace(what: string): ObdError {
  return new ObdError(
    ErrorCodes.NoSpace,
    `Cannot go on: the ext4 file system has no free ${what} left; make the disk larger`,
  );
}

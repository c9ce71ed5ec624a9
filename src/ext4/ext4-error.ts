/** Errors of stored structures that break a rule of ext4. Every error names its inode, block or group. */
import { ErrorCodes, ObdError } from '../errors.js';

/** `where` is "inode 12", "block 99", "group 3" or "superblock"; `found` is the broken rule. */
export function damaged(where: string, found: string): ObdError {
  return new ObdError(ErrorCodes.Corrupt, `Cannot use the ext4 file system: ${where}: ${found}`);
}

/** Valid, but beyond the features of this builder. */
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

/** The ids of devices: what may be one, and the daemon in the names of their kernel objects. */
import { createHash } from 'node:crypto';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { settledPath } from '../io/settled-path.js';

/** Also file names, names in configfs and NBD export names. */
const ID_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;

export function isDeviceId(id: string): boolean {
  return ID_PATTERN.test(id);
}

/** @param action - As in "Cannot ACTION". @throws {ObdError} `InvalidArgument` for what is no id. */
export function checkDeviceId(id: string, action: string): void {
  if (isDeviceId(id)) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot ${action} ${JSON.stringify(id)}: an id is 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", and begins with no "."`,
  );
}

/**
 * The key in the names of this daemon's kernel objects: a hash of its directory, which need not exist.
 * @throws {ObdError} `Io`.
 */
export async function daemonKey(directory: string): Promise<string> {
  try {
    const hash = createHash('sha256').update(await settledPath(directory));
    return hash.digest('hex').slice(0, 16);
  } catch (cause) {
    const message = `Cannot look at the directory "${directory}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path: directory }, cause);
  }
}

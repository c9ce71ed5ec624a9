/**
 * The state that `obdctl mount` leaves for `obdctl umount`: a device with an id made from its mount point, and its image
 * config in the directory of the daemon's socket. A reboot removes both, as it removes the mount.
 */
import { createHash } from 'node:crypto';
import { realpath, rm, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

const ID_HASH_DIGITS = 24;

export interface DeviceMount {
  /** Without symbolic links, as the kernel's table of mounts has it. */
  readonly directory: string;
  readonly deviceId: string;
  readonly configPath: string;
}

/** @throws {ObdError} `InvalidArgument` for a missing directory. */
export async function deviceMountAt(directory: string, blockdSocket: string): Promise<DeviceMount> {
  const real = await realpath(directory).catch((cause: unknown) => {
    const isMissing = systemCode(cause) === 'ENOENT';
    const problem = isMissing ? 'there is no such directory' : messageOf(cause);
    const message = `Cannot use "${directory}" as a mount point: ${problem}`;
    throw new ObdError(ErrorCodes.InvalidArgument, message, { path: directory }, cause);
  });
  const digits = createHash('sha256').update(real).digest('hex').slice(0, ID_HASH_DIGITS);
  const deviceId = `mount-${digits}`;
  const configPath = join(dirname(resolve(blockdSocket)), 'mounts', `${deviceId}.json`);
  return { directory: real, deviceId, configPath };
}

/** Removes the config, and its directory with the last one. */
export async function removeConfig({ configPath }: DeviceMount): Promise<void> {
  await rm(configPath, { force: true });
  // Fails if the directory holds other configs, or if another process has removed it.
  await rmdir(dirname(configPath)).catch(() => {});
}

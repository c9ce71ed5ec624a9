/** `obdctl umount`: the file system, then the device, then its description. */
import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { BlockdClient } from '../blockd/blockd-client.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { unmountAll } from '../snapshotter/image-mount.js';
import { deviceMountAt, removeConfig } from './device-mount.js';

export async function runUmount(directory: string, blockd: string): Promise<void> {
  const place = await deviceMountAt(directory, blockd);
  await checkOurs(place.directory, place.configPath);
  await unmountAll(place.directory, { lazily: false });
  const client = new BlockdClient(resolve(blockd));
  try {
    await client.detach(place.deviceId);
  } catch (error) {
    if (!hasCode(error, ErrorCodes.Unavailable)) throw error;
    // The next daemon takes away a device that nobody uses and whose description is gone.
    process.stderr.write(
      'obdctl: obd-blockd is not running; it removes the device when it starts\n',
    );
  } finally {
    client.close();
  }
  await removeConfig(place);
}

/** The description of the device is there exactly as long as a mount of ours, whole or half made. */
async function checkOurs(directory: string, configPath: string): Promise<void> {
  try {
    await access(configPath);
  } catch (cause) {
    throw new ObdError(
      ErrorCodes.NotFound,
      `Cannot unmount "${directory}": \`obdctl mount\` has nothing there; give --blockd as it was given to that, or use umount(8)`,
      { path: directory },
      cause,
    );
  }
}

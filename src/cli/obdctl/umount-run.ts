/** `obdctl umount`: removes the file system, then the device, then its description. */
import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { BlockdClient } from '../../blockd/blockd-client.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../../errors.js';
import { type DeviceMount, deviceMountAt, removeConfig } from '../../image/device-mount.js';
import { unmountAll } from '../../image/image-mount.js';

const BUSY_PAUSES_MS = [200, 1000];

export async function runUmount(directory: string, blockd: string): Promise<void> {
  const place = await deviceMountAt(directory, blockd);
  await checkOurs(place.directory, place.configPath);
  const client = new BlockdClient(resolve(blockd));
  try {
    const endReads = () => client.endReads(place.deviceId);
    await unmountAll(place.directory, { lazily: false, endReads });
    await detach(client, place);
  } catch (error) {
    if (!hasCode(error, ErrorCodes.Unavailable)) throw error;
    // The next daemon removes an unused device without a description.
    process.stderr.write(
      'obdctl: obd-blockd is not running; it removes the device when it starts\n',
    );
  } finally {
    client.close();
  }
  await removeConfig(place);
}

/**
 * Other mount namespaces hold copies of a mount, for a moment while a container starts, or as long as they exist.
 * @throws {ObdError} `Busy` if a copy stays: the directory is then free, and the command can be repeated.
 */
async function detach(client: BlockdClient, { directory, deviceId }: DeviceMount): Promise<void> {
  for (const pauseMs of BUSY_PAUSES_MS) {
    try {
      return await client.detach(deviceId);
    } catch (error) {
      if (!hasCode(error, ErrorCodes.Busy)) throw error;
    }
    await sleep(pauseMs);
  }
  try {
    await client.detach(deviceId);
  } catch (error) {
    if (!hasCode(error, ErrorCodes.Busy)) throw error;
    throw new ObdError(
      ErrorCodes.Busy,
      `Unmounted "${directory}", but its device stays: ${messageOf(error)}; run \`obdctl umount ${directory}\` again when that has ended`,
      { path: directory },
      error,
    );
  }
}

/** The device's description exists exactly as long as a mount of ours, complete or unfinished. */
async function checkOurs(directory: string, configPath: string): Promise<void> {
  try {
    await access(configPath);
  } catch (cause) {
    throw new ObdError(
      ErrorCodes.NotFound,
      `Cannot unmount "${directory}": \`obdctl mount\` has nothing there; give the same --blockd as to that command, or use umount(8)`,
      { path: directory },
      cause,
    );
  }
}

/**
 * `obdctl mount`, step by step: finds the image's layers, describes them to obd-blockd, mounts the device that it
 * makes. A failure or an interruption undoes the completed steps.
 */
import { mkdir, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { BlockdClient } from '../../blockd/blockd-client.js';
import { byteText } from '../../byte-text.js';
import { ErrorCodes, messageOf, ObdError } from '../../errors.js';
import { type DeviceMount, deviceMountAt, removeConfig } from '../../image/device-mount.js';
import { writeImageConfig } from '../../image/image-config.js';
import { mountAt, mountImage } from '../../image/image-mount.js';
import { type KnownManifest, KnownManifests } from '../../image/known-manifests.js';
import { type ServableImage, servableImage } from '../../image/servable-image.js';
import { LAYER_KINDS } from '../../layers/layer-kinds.js';
import { type Platform, parsePlatform } from '../../oci/platform.js';
import { interruption } from '../interruption.js';

export interface MountOptions {
  /** obd-blockd's socket. */
  readonly blockd: string;
  readonly platform: string | undefined;
  readonly plainHttp: boolean;
  /** containerd's hosts directory. */
  readonly hostsDirectory: string;
}

export async function runMount(
  image: string,
  directory: string,
  { blockd, platform, plainHttp, hostsDirectory }: MountOptions,
): Promise<void> {
  const signal = interruption();
  const wanted: Platform | undefined = platform === undefined ? undefined : parsePlatform(platform);
  const place = await deviceMountAt(directory, blockd);
  await checkFree(place.directory);
  const client = new BlockdClient(resolve(blockd));
  try {
    // A killed obdctl may have left the device. This call also fails if the daemon is not running.
    await client.detach(place.deviceId);
    const known = new KnownManifests((await client.overview()).stateDir);
    const onUnavailable = warnOfOutage;
    const kinds = LAYER_KINDS;
    const options = {
      kinds,
      platform: wanted,
      plainHttp,
      hostsDirectory,
      signal,
      known,
      onUnavailable,
    };
    const found = await servableImage(image, options);
    await attachAndMount(client, place, found, signal);
  } finally {
    client.close();
  }
}

function warnOfOutage({ manifest, seenAt }: KnownManifest, error: unknown): void {
  const minutes = Math.round((Date.now() - seenAt.getTime()) / 60_000);
  const age = minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
  process.stderr.write(
    `obdctl: warning: the registry is unavailable (${messageOf(error)}); mounting the last known image, ${manifest.descriptor.digest}, ${age} ago: reads of bytes that are not in the cache wait for it\n`,
  );
}

async function attachAndMount(
  client: BlockdClient,
  place: DeviceMount,
  { config }: ServableImage,
  signal: AbortSignal,
): Promise<void> {
  const { directory, deviceId, configPath } = place;
  const undo: (() => Promise<void>)[] = [];
  try {
    await makeDirectory(dirname(configPath));
    undo.push(() => removeConfig(place));
    await writeImageConfig(configPath, config);
    undo.push(() => client.detach(deviceId));
    const device = await client.attach(deviceId, configPath, signal);
    signal.throwIfAborted();
    // A mount(8) that timed out may wait in the kernel for the registry, and hold the device.
    undo.push(() => client.endReads(deviceId));
    await mountImage(device.path, directory);
    const what = `${device.path}, ${byteText(device.sizeBytes)} in ${device.layers} layers`;
    process.stdout.write(`${directory}: ${what}\n`);
  } catch (error) {
    // The first error explains more than a failed clean-up; the next mount here tries that again.
    for (const step of undo.reverse()) await step().catch(() => {});
    throw error;
  }
}

async function checkFree(directory: string): Promise<void> {
  if (!(await stat(directory)).isDirectory()) {
    const message = `Cannot mount on "${directory}": it is not a directory`;
    throw new ObdError(ErrorCodes.InvalidArgument, message, { path: directory });
  }
  const mounted = await mountAt(directory);
  if (mounted === undefined) return;
  throw new ObdError(
    ErrorCodes.AlreadyExists,
    `Cannot mount on "${directory}": ${mounted.source} is mounted there; unmount it, or choose another directory`,
    { path: directory },
  );
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch (cause) {
    const message = `Cannot make the directory "${path}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path }, cause);
  }
}

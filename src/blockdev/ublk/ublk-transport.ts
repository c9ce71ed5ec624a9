/**
 * Devices of the kernel's ublk driver, /dev/ublkbN: requests and answers in memory shared with the kernel, by io_uring.
 *
 *   1. A device is added with user recovery: when its server dies, its requests wait, including those in flight, until
 *      another server has fetched them. The driver has no limit to that, so absenceSeconds() is not kept.
 *   2. It is started without the kernel's scan for partitions (native/ublk says why), so the start causes no reads.
 *   3. detach() claims the device, stops it, and only then releases the claim: in between no process can mount it.
 *   4. The thread that attaches or resumes a device serves it. If the thread ends, it is as if the process had died.
 *   5. A released device is held, unanswered, until its process ends: only then can the kernel give it to another one
 *      without risk to requests that arrive just then. The thread that released it can resume it, as it still has it.
 *
 * UblkDevices knows which devices are ours; UblkQueue answers them.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { SECTOR_BYTES } from '../../io/block-sizes.js';
import { hasSysAdmin } from '../../io/capabilities.js';
import { readFully } from '../../io/random-access-file.js';
import { DeviceIdLocks } from '../device-id-locks.js';
import { claimDevice, type WithoutReads } from '../device-users.js';
import type { ReportFailure } from '../disk-requests.js';
import { ServedDevice } from '../served-device.js';
import type { AttachedDevice, OrphanedDevice, Transport, TransportSettings } from '../transport.js';
import { isWritable, type VirtualDisk, withoutLoads } from '../virtual-disk.js';
import { UblkControl } from './ublk-control.js';
import { blockPath, characterPath, isServedHere, UblkDevices } from './ublk-devices.js';
import {
  DEVICE_ID_ANY,
  type DeviceInfo,
  type DeviceParameters,
  FEATURES,
  States,
} from './ublk-protocol.js';
import { UblkQueue } from './ublk-queue.js';

const PROBE_BYTES = 4096;
/** Requests in flight: enough for a container's processes, and twice fio's usual depth. */
const DEPTH = 64;
/** The memory of a tag. The kernel splits larger requests, and reads ahead 128 KiB by itself. */
const IO_BYTES_MAX = 256 << 10;
/** The most zeroes to request at a time from a disk that has to write them. */
const ZERO_BYTES_MAX = 256 << 20;
/** A process that was killed is gone in milliseconds; this is for one that dumps core, and for a kernel that is busy. */
const DEATH_MS_MAX = 20_000;
const DEATH_POLL_MS = 5;

/** Devices that this thread has released: the last hold on them ends with the process, unless this thread resumes them. */
const released = new Map<number, UblkQueue>();

export class UblkTransport implements Transport {
  readonly name = 'ublk';
  readonly capabilities = { write: true, discard: true, resize: false };
  readonly #devices: UblkDevices;
  readonly #settings: TransportSettings;
  readonly #ids = new DeviceIdLocks();

  /** @param directory - For this transport alone; made when it is first needed. */
  constructor(directory: string, settings: TransportSettings = {}) {
    this.#devices = new UblkDevices(directory);
    this.#settings = settings;
  }

  async unavailableReason(): Promise<string | undefined> {
    let control: UblkControl;
    try {
      control = UblkControl.ofThread();
    } catch (error) {
      return await whyNot(error);
    }
    const features = await control.features();
    if (features === undefined || (features & FEATURES) !== FEATURES) {
      return 'the ublk_drv of this kernel has no user recovery: it takes Linux 6.5';
    }
    return (await hasSysAdmin()) ? undefined : 'it takes CAP_SYS_ADMIN';
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'attach', () => this.#attach(id, disk));
  }

  async #attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    const control = await openControl();
    const parameters = parametersOf(disk, IO_BYTES_MAX);
    await readFully(disk, Buffer.alloc(Math.min(PROBE_BYTES, disk.sizeBytes)), 0);
    const { owner, name } = await this.#devices.claim(id);
    let deviceId: number | undefined;
    let queue: UblkQueue | undefined;
    try {
      const added = await control.add({
        deviceId: DEVICE_ID_ANY,
        state: States.Dead,
        depth: DEPTH,
        ioBytesMax: IO_BYTES_MAX,
        features: FEATURES,
        owner,
        name,
        serverPid: process.pid,
      });
      deviceId = added.deviceId;
      await control.setParameters(deviceId, parameters);
      queue = this.#serve(id, added, disk);
      await control.start(deviceId);
      return this.#deviceOf(id, deviceId, disk, queue, control);
    } catch (error) {
      // Why the attach failed matters more; a device that cannot be removed keeps its file, and is an orphan.
      await queue?.close();
      await remove(control, this.#devices, id, deviceId).catch(() => {});
      throw error;
    }
  }

  async orphans(): Promise<OrphanedDevice[]> {
    const ids = await this.#devices.ids();
    if (ids.length === 0) return [];
    const devices = await this.#devices.list(await openControl());
    const orphans: OrphanedDevice[] = [];
    for (const id of ids) {
      if (this.#ids.has(id)) continue;
      const info = devices.get(id);
      if (
        info !== undefined &&
        !released.has(info.deviceId) &&
        (await isServedHere(info.deviceId))
      ) {
        continue;
      }
      orphans.push({ id, path: isWhole(info) ? blockPath(info.deviceId) : undefined });
    }
    return orphans;
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'resume', () => this.#resume(id, disk));
  }

  async #resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    const control = await openControl();
    const found = (await this.#devices.list(control)).get(id);
    if (!isWhole(found)) {
      throw new ObdError(ErrorCodes.NotFound, `Cannot resume "${id}": there is no such device`);
    }
    const { deviceId } = found;
    const path = blockPath(deviceId);
    const had = await control.parameters(deviceId);
    if (had.sizeBytes !== disk.sizeBytes || had.writable !== isWritable(disk)) {
      const message =
        `Cannot resume "${id}": "${path}" has ${describe(had)}, and ${disk.label} ` +
        `has ${describe(parametersOf(disk, had.ioBytesMax))}`;
      throw new ObdError(ErrorCodes.FailedPrecondition, message, { path });
    }
    const own = released.get(deviceId);
    if (own !== undefined) {
      released.delete(deviceId);
      own.resume(disk, this.#reporter(id));
      return this.#deviceOf(id, deviceId, disk, own, control);
    }
    await startRecovery(control, id, deviceId);
    const queue = this.#serve(id, found, disk);
    try {
      await control.endRecovery(deviceId);
    } catch (error) {
      await queue.close();
      throw error;
    }
    return this.#deviceOf(id, deviceId, disk, queue, control);
  }

  async clear(id: string): Promise<void> {
    await this.#ids.withLock(id, 'clear', () => this.#clear(id));
  }

  async #clear(id: string): Promise<void> {
    if (!(await this.#devices.has(id))) return;
    const control = await openControl();
    const info = (await this.#devices.list(control)).get(id);
    if (isWhole(info)) {
      const own = released.get(info.deviceId);
      // An earlier user may have left requests, and the kernel waits for their answers.
      const stop = () => control.stop(info.deviceId);
      await stopUnused(info.deviceId, stop, async (work) => {
        own?.refuse();
        return await work();
      });
      released.delete(info.deviceId);
      await own?.close();
    }
    await remove(control, this.#devices, id, info?.deviceId);
  }

  #reporter(id: string): ReportFailure {
    return (error, offset, length) => this.#settings.onReadError?.({ id, offset, length, error });
  }

  #deviceOf(
    id: string,
    deviceId: number,
    disk: VirtualDisk,
    queue: UblkQueue,
    control: UblkControl,
  ): ServedDevice {
    const withoutReads: WithoutReads = (work) => withoutLoads(disk, work);
    return new ServedDevice(id, this.#ids, {
      path: blockPath(deviceId),
      takeAway: () => stopUnused(deviceId, () => control.stop(deviceId), withoutReads),
      cleanUp: async () => {
        await withoutReads(() => queue.close());
        await remove(control, this.#devices, id, deviceId);
      },
      stopServing: async () => {
        await queue.leave();
        released.set(deviceId, queue);
      },
      isTakenAway: () => queue.isStopped,
    });
  }

  #serve(id: string, info: DeviceInfo, disk: VirtualDisk): UblkQueue {
    const path = characterPath(info.deviceId);
    try {
      return new UblkQueue(path, info.depth, info.ioBytesMax, disk, this.#reporter(id));
    } catch (cause) {
      const message = `Cannot serve "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }
}

/**
 * @param stop - Called when the device has no user, and no process can mount it.
 * @throws {ObdError} `Busy` while it is mounted or open, which changes nothing.
 */
async function stopUnused(
  deviceId: number,
  stop: () => Promise<void>,
  withoutReads: WithoutReads,
): Promise<void> {
  const claim = await claimDevice(blockPath(deviceId), withoutReads);
  try {
    await withoutReads(stop);
  } finally {
    await claim.close();
  }
}

/** Deletes a device that is stopped or was never started, and releases its id. Idempotent. */
async function remove(
  control: UblkControl,
  devices: UblkDevices,
  id: string,
  deviceId: number | undefined,
): Promise<void> {
  if (deviceId !== undefined) await control.remove(deviceId);
  await devices.release(id);
}

/** Waits for the last server's end, and makes the device fetchable again. */
async function startRecovery(control: UblkControl, id: string, deviceId: number): Promise<void> {
  const deadline = Date.now() + DEATH_MS_MAX;
  for (;;) {
    const refused = await control.startRecovery(deviceId);
    // EINVAL: a server died between this call and its fetch, so it is fetchable already.
    if (refused === undefined || refused === 'EINVAL') return;
    if (refused !== 'EBUSY' || Date.now() > deadline) {
      const path = blockPath(deviceId);
      const server = (await control.info(deviceId))?.serverPid;
      const message = `Cannot resume "${id}": "${path}" is still served by process ${server} (${refused})`;
      throw new ObdError(ErrorCodes.Io, message, { path });
    }
    await sleep(DEATH_POLL_MS);
  }
}

/** Whether it was started: an unstarted device never had a user, and cannot be recovered. */
function isWhole(info: DeviceInfo | undefined): info is DeviceInfo {
  return info !== undefined && info.state !== States.Dead;
}

function parametersOf(disk: VirtualDisk, ioBytesMax: number): DeviceParameters {
  const { sizeBytes, label } = disk;
  if (sizeBytes % SECTOR_BYTES !== 0) {
    const message = `Cannot export ${label}: its ${sizeBytes} bytes are not whole sectors of ${SECTOR_BYTES}`;
    throw new ObdError(ErrorCodes.InvalidArgument, message, { path: label });
  }
  return { sizeBytes, ioBytesMax, writable: isWritable(disk), zeroBytesMax: ZERO_BYTES_MAX };
}

function describe({ sizeBytes, writable }: DeviceParameters): string {
  return `${sizeBytes} bytes and can${writable ? '' : 'not'} be written`;
}

/** @throws {ObdError} `Host`. */
async function openControl(): Promise<UblkControl> {
  try {
    return UblkControl.ofThread();
  } catch (error) {
    const message = `ublk cannot be used: ${await whyNot(error)}`;
    throw new ObdError(ErrorCodes.Host, message, {}, error);
  }
}

/** Explains the failure to open the control device. */
async function whyNot(error: unknown): Promise<string> {
  const code = systemCode(error);
  const { syscall } = error as { syscall?: string };
  if (syscall === 'open' && code === 'ENOENT') {
    return 'the module ublk_drv is not loaded or this kernel lacks it (it takes Linux 6.5): modprobe ublk_drv';
  }
  if (syscall === 'open') return `"/dev/ublk-control" cannot be opened (${code}): it takes root`;
  if (syscall !== 'io_uring_setup') return messageOf(error);
  if (code === 'ENOSYS') return 'this kernel has no io_uring, or a seccomp filter hides it';
  if (code !== 'EPERM') return `io_uring_setup failed (${code}): it takes Linux 6.1`;
  const disabled = await readFile('/proc/sys/kernel/io_uring_disabled', 'utf8').catch(() => '0');
  return disabled.trim() === '0'
    ? 'a seccomp filter forbids io_uring to this process'
    : `io_uring is disabled (kernel.io_uring_disabled is ${disabled.trim()}): sysctl kernel.io_uring_disabled=0`;
}

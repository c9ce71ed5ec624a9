/**
 * The transport on the kernel's SCSI target: TCMU hands a disk's commands to this process in a ring of shared memory,
 * and tcm_loop makes a SCSI host of this machine that the disk is on, /dev/sdX.
 *
 * The names of a device's objects in configfs alone record its owner (target-objects.ts).
 *
 *   1. attach: core device, uio device, serving, and only then the SCSI host, as the kernel's scan needs answers.
 *   2. A killed server leaves commands in the ring, and the kernel keeps adding some. The next server opens the uio
 *      device, which only one process can have; blocks the device; has the kernel repeat the commands in the ring (BUSY,
 *      which the SCSI layer retries); and unblocks it. Without a server, commands fail after absenceSeconds().
 *   3. The disk has no user when it is removed: it is claimed first.
 *   4. clear() answers all commands with errors: a kernel in the middle of the scan, or of the search for partitions,
 *      would wait for answers while it holds locks that block every other process.
 *
 * No netlink. TCMU announces each device to handler programs in messages that, if they are lost, leave the kernel waiting
 * for an answer for ever, with the device's directory locked. We make the device, so we know all that the message says: we
 * set nl_reply_supported=-1, and the kernel waits for no answer, not even where a program that died left block_netlink
 * at 1. The kernel still sends the message, perhaps to a tcmu-runner, which logs that it has no handler for "obd-ts/" and
 * ignores the device. Tested on 6.1 and 6.12 with a tcmu-runner that was killed and restarted while a disk was served,
 * and while it had no server.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { DEVICE_BLOCK_BYTES } from '../../io/block-sizes.js';
import { readFully } from '../../io/random-access-file.js';
import { outputOf } from '../../io/run-program.js';
import { DeviceIdLocks } from '../device-id-locks.js';
import { daemonKey } from '../device-ids.js';
import { claimDevice, type WithoutReads } from '../device-users.js';
import { ServedDevice } from '../served-device.js';
import {
  type AttachedDevice,
  absenceSeconds,
  type OrphanedDevice,
  type Transport,
  type TransportSettings,
} from '../transport.js';
import { type VirtualDisk, withoutLoads } from '../virtual-disk.js';
import { CommandRefusal } from './command-refusal.js';
import { RingServer, TRANSFER_BYTES_MAX } from './ring-server.js';
import { diskNodeOf, setCommandTimeout, waitForDisk } from './scsi-disk.js';
import {
  enableCoreDevice,
  findUio,
  isMade,
  listTargets,
  makeCoreDevice,
  makeLoopTarget,
  putAction,
  removeEmptyHba,
  removeLink,
  removeTarget,
  scsiAddressOf,
  sizeBytesOf,
  type TargetNames,
  targetNames,
  unavailableReason,
} from './target-objects.js';
import { openUioDevice, type UioDevice } from './uio-device.js';

/** The bytes that the kernel's partition scan reads. */
const FIRST_BYTES = 16384;
/** The kernel closes the files of a killed process within that time, unless its memory is large. */
const TAKE_OVER_MS = 10_000;
/** Longer than claimDevice() waits for others. */
const OPEN_MS = 4000;
/** The scan reads a few blocks that attach() has made local. */
const SCAN_MS = 5_000;
const POLL_MS = 20;

export class TcmuTransport implements Transport {
  readonly name = 'tcmu';
  readonly capabilities = { write: true, discard: true, resize: false };
  readonly #directory: string;
  readonly #settings: TransportSettings;
  readonly #shared = Buffer.allocUnsafeSlow(TRANSFER_BYTES_MAX);
  readonly #ids = new DeviceIdLocks();

  /** @param directory - Names this daemon's devices; made when it is first needed, and stays empty. */
  constructor(directory: string, settings: TransportSettings = {}) {
    this.#directory = directory;
    this.#settings = settings;
  }

  async unavailableReason(): Promise<string | undefined> {
    return await unavailableReason();
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'attach', async () => {
      const names = await this.#namesFor(id, 'attach');
      if (disk.sizeBytes % DEVICE_BLOCK_BYTES !== 0 || disk.sizeBytes === 0) {
        throw new ObdError(
          ErrorCodes.InvalidArgument,
          `Cannot attach ${disk.label}: ${disk.sizeBytes} bytes are no blocks of ${DEVICE_BLOCK_BYTES}`,
        );
      }
      await readFully(disk, Buffer.alloc(Math.min(FIRST_BYTES, disk.sizeBytes)), 0);
      await makeCoreDevice(names);
      let serving: Serving | undefined;
      try {
        await enableCoreDevice(names, disk.sizeBytes, absenceSeconds(this.#settings));
        serving = await this.#serve(id, names, disk, 'attach');
        await makeLoopTarget(names);
        const address = (await scsiAddressOf(names)) ?? 'unknown';
        const path = await waitForDisk(address);
        await setCommandTimeout(address, absenceSeconds(this.#settings));
        return this.#deviceOf(id, names, path, disk, serving);
      } catch (error) {
        // Why the attach failed matters more. orphans() finds a device that cannot be removed.
        await abandon(names, serving).catch(() => {});
        throw error;
      }
    });
  }

  async orphans(): Promise<OrphanedDevice[]> {
    const instance = await daemonKey(this.#directory);
    const found: OrphanedDevice[] = [];
    for (const id of await listTargets(instance)) {
      if (this.#ids.has(id)) continue;
      found.push({ id, path: await nodeOf(targetNames(instance, id)) });
    }
    await removeEmptyHba(targetNames(instance, ''));
    return found;
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'resume', async () => {
      const names = await this.#namesFor(id, 'resume');
      const path = await nodeOf(names);
      if (path === undefined) {
        throw new ObdError(ErrorCodes.NotFound, `Cannot resume "${id}": there is no such device`);
      }
      const sizeBytes = await sizeBytesOf(names);
      if (sizeBytes !== disk.sizeBytes) {
        throw new ObdError(
          ErrorCodes.FailedPrecondition,
          `Cannot resume ${path} with ${disk.label}: it has ${sizeBytes} bytes, and the disk ${disk.sizeBytes}`,
          { path },
        );
      }
      const serving = await this.#serve(id, names, disk, 'resume');
      try {
        // The earlier server may have died before it set this.
        await setCommandTimeout(
          (await scsiAddressOf(names)) ?? 'unknown',
          absenceSeconds(this.#settings),
        );
      } catch (error) {
        await serving.end();
        throw error;
      }
      return this.#deviceOf(id, names, path, disk, serving);
    });
  }

  async clear(id: string): Promise<void> {
    await this.#ids.withLock(id, 'clear', async () => {
      const names = await this.#namesFor(id, 'clear');
      if (await isMade(names)) await clear(names);
    });
  }

  /** Its names in the kernel. @throws {ObdError} `Host` if this one has no TCMU. */
  async #namesFor(id: string, action: string): Promise<TargetNames> {
    const missing = await this.unavailableReason();
    if (missing !== undefined) {
      const message = `Cannot ${action} "${id}": tcmu cannot be used: ${missing}`;
      throw new ObdError(ErrorCodes.Host, message);
    }
    return targetNames(await daemonKey(this.#directory), id);
  }

  #deviceOf(
    id: string,
    names: TargetNames,
    path: string,
    disk: VirtualDisk,
    serving: Serving,
  ): ServedDevice {
    const withoutReads: WithoutReads = (work) => withoutLoads(disk, work);
    return new ServedDevice(id, this.#ids, {
      path,
      takeAway: async () => {
        // Another program may have removed it: then there is nothing to claim, and the node is another disk's.
        const isThere = (await nodeOf(names)) === path;
        if (isThere) await endOfScan(path);
        const claim = isThere ? await claimDevice(path, withoutReads) : undefined;
        try {
          await withoutReads(() => removeLink(names));
        } finally {
          await claim?.close();
        }
      },
      cleanUp: async () => {
        await withoutReads(() => serving.end());
        await removeTarget(names);
      },
      stopServing: () => serving.end(),
    });
  }

  async #serve(
    id: string,
    names: TargetNames,
    disk: VirtualDisk,
    as: 'attach' | 'resume',
  ): Promise<Serving> {
    let server: RingServer | undefined;
    const uio = await openUio(names, (failure) => server?.wake(failure));
    try {
      if (as === 'resume') await holdAndReset(names);
      const report = (error: unknown, offset: number, length: number): void =>
        this.#settings.onReadError?.({ id, offset, length, error });
      server = new RingServer(uio, disk, names.serial, this.#shared, report);
      server.wake();
      if (as === 'resume') await putAction(names, 'block_dev', 0);
      return new Serving(uio, server);
    } catch (error) {
      await server?.stop();
      uio.close();
      throw error;
    }
  }
}

/** A uio device and the server of its commands. */
class Serving {
  readonly #uio: UioDevice;
  readonly #server: RingServer;

  constructor(uio: UioDevice, server: RingServer) {
    this.#uio = uio;
    this.#server = server;
  }

  /** Answers the commands already taken first. Idempotent. */
  async end(): Promise<void> {
    await this.#server.stop();
    this.#uio.close();
  }
}

/**
 * Waits for the kernel's partition scan of a new disk, in another process. Opening the disk waits for the scan, which waits for our
 * answers, and no signal ends that wait. A server that is killed while it waits keeps its uio device open, so no other
 * server can answer.
 */
async function endOfScan(path: string): Promise<void> {
  const open = [`if=${path}`, 'of=/dev/null', 'count=0', 'status=none'];
  await outputOf('dd', open, SCAN_MS).catch(() => {});
}

async function nodeOf(names: TargetNames): Promise<string | undefined> {
  const address = await scsiAddressOf(names);
  return address === undefined ? undefined : await diskNodeOf(address);
}

/** Its files are closed only a moment after a process was killed. @throws {ObdError} `Busy`, `Io`. */
async function openUio(names: TargetNames, onReady: (failure: number) => void): Promise<UioDevice> {
  const node = await findUio(names);
  if (node === undefined) {
    const message = `Cannot serve "${names.device}": there is no uio device called "${names.uioName}"`;
    throw new ObdError(ErrorCodes.Io, message, { path: names.device });
  }
  const { path, sizeBytes } = node;
  const deadline = performance.now() + TAKE_OVER_MS;
  for (;;) {
    try {
      return openUioDevice(path, sizeBytes, onReady);
    } catch (cause) {
      if (systemCode(cause) !== 'EBUSY') {
        const message = `Cannot open "${path}" of "${names.device}": ${messageOf(cause)}`;
        throw new ObdError(ErrorCodes.Io, message, { path }, cause);
      }
      if (performance.now() > deadline) {
        const message = `Cannot serve "${names.device}": another process does, by "${path}"; stop that one first`;
        throw new ObdError(ErrorCodes.Busy, message, { path }, cause);
      }
      await sleep(POLL_MS);
    }
  }
}

/** Holds the kernel's commands back, and makes it repeat those that an earlier server left unanswered. */
async function holdAndReset(names: TargetNames): Promise<void> {
  await putAction(names, 'block_dev', 1);
  await putAction(names, 'reset_ring', 1);
}

/** Takes away a disk that was never handed out, even while it is open. */
async function abandon(names: TargetNames, serving: Serving | undefined): Promise<void> {
  await removeLink(names);
  await serving?.end();
  await removeTarget(names);
}

async function clear(names: TargetNames): Promise<void> {
  const path = await nodeOf(names);
  const claiming = path === undefined ? undefined : claimDevice(path, (work) => work());
  // Opening blocks only while the kernel's own partition scan waits for answers. Then no user ever had the disk.
  await Promise.race([claiming, sleep(OPEN_MS, undefined, { ref: false })]);
  let refusal: CommandRefusal | undefined;
  let uio: UioDevice | undefined;
  try {
    if ((await findUio(names)) !== undefined) {
      uio = await openUio(names, () => refusal?.wake());
      await holdAndReset(names);
      refusal = new CommandRefusal(uio);
      await putAction(names, 'block_dev', 0);
    }
    await claiming;
    await removeLink(names);
  } finally {
    await (await claiming?.catch(() => undefined))?.close();
    uio?.close();
  }
  await removeTarget(names);
}

/**
 * The transport on the kernel's SCSI target: TCMU hands a disk's commands to this process in a ring of shared memory,
 * and tcm_loop makes a SCSI host of this machine that the disk is on, /dev/sdX.
 *
 * Which device is whose stands in the names of its objects in configfs and nowhere else (target-objects.ts).
 *
 *   1. attach: core device, uio device, serving, and only then the SCSI host, whose scan the kernel wants answers to.
 *   2. A server that is killed leaves commands in the ring, and the kernel goes on to put some there. Who comes next
 *      opens the uio device, which only one process can have; holds the device; has the kernel ask again for what was in
 *      the ring (BUSY, which the SCSI layer repeats); and lets go. absenceSeconds() later commands fail.
 *   3. Nobody is at the disk when it is removed: it is claimed first.
 *   4. What is cleared away is answered with errors meanwhile: a kernel in the middle of the scan, or of the search for
 *      partitions, would wait for answers while it holds locks that nobody else gets past.
 *
 * No netlink. TCMU tells handler programs of each device in messages that, if they are lost, leave the kernel waiting
 * for an answer for ever, with the device's directory locked. Whoever makes the device knows all that the message says, so
 * it is made with nl_reply_supported=-1, and the kernel waits for nobody, not even where a program that died left
 * block_netlink at 1. The message is sent nevertheless, to a tcmu-runner maybe: of a configuration that begins with "obd-ts/"
 * it says that it has no handler, and lets it be. Tried on 6.1 and 6.12 with one that was killed and restarted while a disk
 * was served, and while nobody served it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { readFully } from '../../io/random-access-file.js';
import { daemonKey, TakenIds } from '../device-ids.js';
import { claimDevice, type WithoutReads } from '../device-users.js';
import {
  type AttachedDevice,
  absenceSeconds,
  type Survivor,
  type Transport,
  type TransportSettings,
} from '../transport.js';
import { type VirtualDisk, withoutLoads } from '../virtual-disk.js';
import { CommandRefusal } from './command-refusal.js';
import { RingServer, TRANSFER_BYTES_MAX } from './ring-server.js';
import { BLOCK_BYTES } from './scsi-command.js';
import { diskNodeOf, setCommandTimeout, waitForDisk } from './scsi-disk.js';
import {
  enableCoreDevice,
  findUio,
  isMade,
  listTargets,
  makeCoreDevice,
  makeLoopTarget,
  missingForTargets,
  putAction,
  removeEmptyHba,
  removeLink,
  removeTarget,
  scsiAddressOf,
  sizeBytesOf,
  type TargetNames,
  targetNames,
} from './target-objects.js';
import { openUioDevice, type UioDevice } from './uio-device.js';

/** What the kernel reads in search of partitions. */
const FIRST_BYTES = 16384;
/** A process that was killed has its files closed within that, unless its memory is large. */
const TAKE_OVER_MS = 10_000;
/** Longer than claimDevice() waits for others. */
const OPEN_MS = 4000;
const POLL_MS = 20;

export class TcmuTransport implements Transport {
  readonly name = 'tcmu';
  readonly #directory: string;
  readonly #settings: TransportSettings;
  readonly #shared = Buffer.allocUnsafeSlow(TRANSFER_BYTES_MAX);
  readonly #taken = new TakenIds();

  /** @param directory - Names this daemon's devices; made when it is first needed, and stays empty. */
  constructor(directory: string, settings: TransportSettings = {}) {
    this.#directory = directory;
    this.#settings = settings;
  }

  async missing(): Promise<string | undefined> {
    return await missingForTargets();
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#taken.keep(id, 'attach', async () => {
      const names = await this.#namesFor(id, 'attach');
      if (disk.sizeBytes % BLOCK_BYTES !== 0 || disk.sizeBytes === 0) {
        throw new ObdError(
          ErrorCodes.InvalidArgument,
          `Cannot attach ${disk.label}: ${disk.sizeBytes} bytes are no blocks of ${BLOCK_BYTES}`,
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
        return new TcmuDevice(names, path, disk, serving, () => this.#taken.giveBack(id));
      } catch (error) {
        // Why the attach failed matters more. What cannot be taken back is found by survivors().
        await abandon(names, serving).catch(() => {});
        throw error;
      }
    });
  }

  async survivors(): Promise<Survivor[]> {
    const instance = await daemonKey(this.#directory);
    const found: Survivor[] = [];
    for (const id of await listTargets(instance)) {
      if (this.#taken.has(id)) continue;
      found.push({ id, path: await nodeOf(targetNames(instance, id)) });
    }
    await removeEmptyHba(targetNames(instance, ''));
    return found;
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#taken.keep(id, 'resume', async () => {
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
        // It may have died before it set this.
        await setCommandTimeout(
          (await scsiAddressOf(names)) ?? 'unknown',
          absenceSeconds(this.#settings),
        );
      } catch (error) {
        await serving.end();
        throw error;
      }
      return new TcmuDevice(names, path, disk, serving, () => this.#taken.giveBack(id));
    });
  }

  async clear(id: string): Promise<void> {
    await this.#taken.borrow(id, 'clear', async () => {
      const names = await this.#namesFor(id, 'clear');
      if (await isMade(names)) await clear(names);
    });
  }

  /** Its names in the kernel. @throws {ObdError} `Host` if this one has no TCMU. */
  async #namesFor(id: string, action: string): Promise<TargetNames> {
    const missing = await this.missing();
    if (missing !== undefined) {
      const message = `Cannot ${action} "${id}": tcmu cannot be used: ${missing}`;
      throw new ObdError(ErrorCodes.Host, message);
    }
    return targetNames(await daemonKey(this.#directory), id);
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

/** A uio device and who answers its commands. */
class Serving {
  readonly #uio: UioDevice;
  readonly #server: RingServer;

  constructor(uio: UioDevice, server: RingServer) {
    this.#uio = uio;
    this.#server = server;
  }

  /** What was taken is answered first. Idempotent. */
  async end(): Promise<void> {
    await this.#server.stop();
    this.#uio.close();
  }
}

class TcmuDevice implements AttachedDevice {
  readonly path: string;
  readonly #names: TargetNames;
  readonly #disk: VirtualDisk;
  readonly #serving: Serving;
  readonly #forget: () => void;
  #isGone = false;
  #detaching: Promise<void> | undefined;

  constructor(
    names: TargetNames,
    path: string,
    disk: VirtualDisk,
    serving: Serving,
    forget: () => void,
  ) {
    this.path = path;
    this.#names = names;
    this.#disk = disk;
    this.#serving = serving;
    this.#forget = forget;
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  async detach(): Promise<void> {
    this.#detaching ??= this.#detach().catch((error) => {
      this.#detaching = undefined;
      throw error;
    });
    await this.#detaching;
  }

  async release(): Promise<void> {
    await this.#serving.end();
    this.#forget();
  }

  async #detach(): Promise<void> {
    const withoutReads: WithoutReads = (work) => withoutLoads(this.#disk, work);
    if (!this.#isGone) {
      // Somebody else may have removed it: then there is nothing to claim, and the node is another's.
      const isThere = (await nodeOf(this.#names)) === this.path;
      const claim = isThere ? await claimDevice(this.path, withoutReads) : undefined;
      try {
        await withoutReads(() => removeLink(this.#names));
        this.#isGone = true;
      } finally {
        await claim?.close();
      }
    }
    await withoutReads(() => this.#serving.end());
    await removeTarget(this.#names);
    this.#forget();
  }
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

/** Keeps the kernel's commands back, and has it ask again for those that an earlier server left unanswered. */
async function holdAndReset(names: TargetNames): Promise<void> {
  await putAction(names, 'block_dev', 1);
  await putAction(names, 'reset_ring', 1);
}

/** Takes away what was never handed out, whoever is looking at it. */
async function abandon(names: TargetNames, serving: Serving | undefined): Promise<void> {
  await removeLink(names);
  await serving?.end();
  await removeTarget(names);
}

async function clear(names: TargetNames): Promise<void> {
  const path = await nodeOf(names);
  const claiming = path === undefined ? undefined : claimDevice(path, (work) => work());
  // Opening it waits only while the kernel itself waits for answers to its search for partitions. Then nobody ever had it.
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

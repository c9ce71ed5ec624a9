/**
 * The transport on the kernel's own NBD client: /dev/nbdN asks this process over a pair of sockets.
 *
 * The kernel alone records the owner of a device: its backend is called obd-ts/INSTANCE/ID, INSTANCE being a hash of this
 * daemon's directory, so a device that exists at all can be found again.
 *
 *   1. attach: CONNECT, set the timer, first read, then absenceSeconds(). Until that read the device waits only
 *      UNREAD_SECONDS for a server, because the first open makes the kernel look for partitions: after a crash in
 *      between, a longer limit would keep clear() waiting in open(2).
 *   2. A killed server closes its end. Requests not sent yet wait in the kernel. Requests in flight stay where they are
 *      until their timer finds that their connection was replaced (RECONFIGURE), and are sent again.
 *   3. The device has no user when it is disconnected: it is claimed first. Then its number is free and its node goes.
 *   4. The numbers the module came with are not used, and a device of ours is destroyed with its connection. So settings
 *      of it, such as the timer, affect no other program, and /sys/block is afterwards as it was.
 *
 * One connection, although the kernel takes many. With several, the kernel takes a request that exceeds its timer for a
 * dead connection and cuts it, although a registry may take a minute; with one it waits. A read of 9 s at a timer of
 * 2 s came through on one, and not within 100 s on two (6.1 and 6.12). That decides it, and not speed, of which emulation
 * says little: against one, four answered 1.1 and 1.4 times as many 4 KiB reads at depth 32 in two boots of 6.12, and 0.45
 * and 0.33 times in two rounds of a busy 6.1; of 1 MiB reads 0.8 and 1.3, 0.6 and 0.75 times.
 */
import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError } from '../../errors.js';
import { DEVICE_BLOCK_BYTES } from '../../io/block-sizes.js';
import { readFully } from '../../io/random-access-file.js';
import { outputOf } from '../../io/run-program.js';
import { DeviceIdLocks } from '../device-id-locks.js';
import { daemonKey } from '../device-ids.js';
import { claimDevice, type WithoutReads } from '../device-users.js';
import { ReplyBuffers } from '../nbd/reply-buffers.js';
import { Transmission } from '../nbd/transmission.js';
import { transmissionFlags } from '../nbd/transmission-flags.js';
import { ServedDevice } from '../served-device.js';
import {
  type AttachedDevice,
  absenceSeconds,
  type OrphanedDevice,
  type Transport,
  type TransportSettings,
} from '../transport.js';
import { type VirtualDisk, withoutLoads } from '../virtual-disk.js';
import {
  backendOf,
  freeIndexes,
  isThere,
  listNamedDevices,
  nodeOf,
  requestPatienceOf,
  requestPatiencePath,
  sizeBytesOf,
} from './nbd-devices.js';
import {
  closeSocket,
  connectDevice,
  DESTROY_ON_DISCONNECT,
  disconnectDevice,
  isHungUp,
  openSocketPair,
  reconfigureDevice,
  unavailableReason,
} from './nbd-netlink.js';

/** The bytes that the kernel's partition scan reads. */
const FIRST_BYTES = 16384;
/** Its bytes are local by then; this is for a kernel that does not answer. */
const PREPARE_MS = 30_000;
const UNREAD_SECONDS = 2;
/** Arguments: a path, the text to write there, the device. */
const PREPARE_SCRIPT =
  'echo "$2" >"$1" && exec dd if="$3" of=/dev/null bs=4096 count=1 iflag=direct status=none';
/** Request timeout. After RECONFIGURE, requests in flight are sent again when it fires. Each expiry logs one kernel line. */
const REQUEST_PATIENCE_MS = 2000;
/** Numbers to try when others take the free ones at the same time. */
const INDEX_TRIES = 64;
/** The kernel notices the death of a process within milliseconds. */
const TAKE_OVER_MS = 5_000;
/** The node goes as soon as no process has it open. */
const DISAPPEAR_MS = 10_000;
const POLL_MS = 10;

export class NbdTransport implements Transport {
  readonly name = 'nbd';
  readonly capabilities = { write: true, discard: true, resize: false };
  readonly #directory: string;
  readonly #settings: TransportSettings;
  readonly #buffers = new ReplyBuffers();
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
      const backend = await this.#backendOf(id);
      const missing = await this.unavailableReason();
      if (missing !== undefined) {
        const message = `Cannot attach "${id}": nbd cannot be used: ${missing}`;
        throw new ObdError(ErrorCodes.Host, message);
      }
      const [existing] = await devicesOf(backend);
      if (existing !== undefined) {
        throw new ObdError(
          ErrorCodes.Busy,
          `Cannot attach "${id}": it is ${nodeOf(existing)}, attached by this daemon or one before it`,
        );
      }
      if (disk.sizeBytes % DEVICE_BLOCK_BYTES !== 0) {
        throw new ObdError(
          ErrorCodes.InvalidArgument,
          `Cannot attach ${disk.label}: ${disk.sizeBytes} bytes are no multiple of ${DEVICE_BLOCK_BYTES}`,
        );
      }
      await readFully(disk, Buffer.alloc(Math.min(FIRST_BYTES, disk.sizeBytes)), 0);
      const [ours, kernels] = openSocketPair();
      const index = await connectFree(kernels, disk, backend).catch((error) => {
        closeSocket(ours);
        throw error;
      });
      const transmission = this.#serve(id, ours, disk);
      try {
        await prepare(index, backend, absenceSeconds(this.#settings));
      } catch (error) {
        // Why the attach failed matters more. orphans() finds a device that cannot be removed.
        await abandon(index, backend, transmission).catch(() => {});
        throw error;
      }
      return this.#deviceOf(id, index, backend, disk, transmission);
    });
  }

  async orphans(): Promise<OrphanedDevice[]> {
    const prefix = await this.#namePrefix();
    return (await listNamedDevices()).flatMap(({ index, backend }) => {
      const id = backend.slice(prefix.length);
      if (!backend.startsWith(prefix) || this.#ids.has(id)) return [];
      return [{ id, path: nodeOf(index) }];
    });
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'resume', async () => {
      const backend = await this.#backendOf(id);
      const [index] = await devicesOf(backend);
      const sizeBytes = index === undefined ? undefined : await sizeBytesOf(index);
      if (index === undefined || sizeBytes === undefined) {
        throw new ObdError(ErrorCodes.NotFound, `Cannot resume "${id}": there is no such device`);
      }
      const path = nodeOf(index);
      if (sizeBytes !== disk.sizeBytes) {
        throw new ObdError(
          ErrorCodes.FailedPrecondition,
          `Cannot resume ${path} with ${disk.label}: it has ${sizeBytes} bytes, and the disk ${disk.sizeBytes}`,
          { path },
        );
      }
      const ours = await takeOver(index, backend, absenceSeconds(this.#settings));
      const transmission = this.#serve(id, ours, disk);
      try {
        // Unless its server died in the middle of attach().
        const isPrepared = (await requestPatienceOf(index)) === REQUEST_PATIENCE_MS;
        if (!isPrepared) await prepare(index, backend, absenceSeconds(this.#settings));
      } catch (error) {
        await transmission.end();
        throw error;
      }
      return this.#deviceOf(id, index, backend, disk, transmission);
    });
  }

  async clear(id: string): Promise<void> {
    await this.#ids.withLock(id, 'clear', async () => {
      const backend = await this.#backendOf(id);
      // Empty without a driver, which then needs no request.
      for (const index of await devicesOf(backend)) {
        await disconnect(index, backend, (work) => work());
        await untilGone(index, backend);
      }
    });
  }

  /** Serves a device on a socket whose other end the kernel has. */
  #serve(id: string, ours: number, disk: VirtualDisk): Transmission {
    const socket = new Socket({ fd: ours, readable: true, writable: true });
    // The kernel's end is gone, with the device; 'close' follows.
    socket.on('error', () => {});
    const report = (error: unknown, offset: number, length: number): void =>
      this.#settings.onReadError?.({ id, offset, length, error });
    const options = { disk, structured: false, allocation: false, buffers: this.#buffers, report };
    return new Transmission(socket, options, Buffer.alloc(0));
  }

  #deviceOf(
    id: string,
    index: number,
    backend: string,
    disk: VirtualDisk,
    transmission: Transmission,
  ): ServedDevice {
    const withoutReads: WithoutReads = (work) => withoutLoads(disk, work);
    return new ServedDevice(id, this.#ids, {
      path: nodeOf(index),
      takeAway: () => disconnect(index, backend, withoutReads),
      cleanUp: async () => {
        await withoutReads(() => transmission.end());
        await untilGone(index, backend);
      },
      stopServing: () => transmission.end(),
    });
  }

  /** The device's name in the kernel. */
  async #backendOf(id: string): Promise<string> {
    return `${await this.#namePrefix()}${id}`;
  }

  /** The prefix of the backend names of this daemon's devices. */
  async #namePrefix(): Promise<string> {
    return `obd-ts/${await daemonKey(this.#directory)}/`;
  }
}

/** Takes a device away even while it is open: it was never handed out. */
async function abandon(index: number, backend: string, transmission: Transmission): Promise<void> {
  try {
    await disconnectDevice(index);
  } finally {
    await transmission.end();
  }
  await untilGone(index, backend);
}

async function devicesOf(backend: string): Promise<number[]> {
  const named = await listNamedDevices();
  return named.filter((device) => device.backend === backend).map(({ index }) => index);
}

/** Gives `socket` to the kernel as a new device, and returns its number. The kernel resolves races for a number. */
async function connectFree(socket: number, disk: VirtualDisk, backend: string): Promise<number> {
  try {
    let refused: unknown;
    for (const index of await freeIndexes(INDEX_TRIES)) {
      try {
        await connectDevice({
          sockets: [socket],
          sizeBytes: disk.sizeBytes,
          blockSize: DEVICE_BLOCK_BYTES,
          serverFlags: transmissionFlags(disk),
          clientFlags: DESTROY_ON_DISCONNECT,
          timeoutSeconds: 0,
          deadConnTimeoutSeconds: UNREAD_SECONDS,
          backendIdentifier: backend,
          index,
        });
        return index;
      } catch (error) {
        if (!hasCode(error, ErrorCodes.Busy)) throw error;
        refused = error;
      }
    }
    throw (
      refused ??
      new ObdError(
        ErrorCodes.NoSpace,
        `Cannot attach ${disk.label}: no number for an NBD device is free; detach some, or load nbd with a smaller max_part`,
      )
    );
  } finally {
    closeSocket(socket);
  }
}

/** Replaces the dead connection by a new one, and returns our end. */
async function takeOver(index: number, backend: string, absence: number): Promise<number> {
  const deadline = Date.now() + TAKE_OVER_MS;
  for (;;) {
    const [ours, kernels] = openSocketPair();
    try {
      await reconfigureDevice({
        index,
        sockets: [kernels],
        deadConnTimeoutSeconds: absence,
        backendIdentifier: backend,
      });
    } catch (error) {
      closeSocket(ours);
      throw error;
    } finally {
      closeSocket(kernels);
    }
    // The kernel accepts a socket without using it while it takes the old connection for alive.
    if (!isHungUp(ours)) return ours;
    closeSocket(ours);
    if (Date.now() > deadline) {
      const path = nodeOf(index);
      throw new ObdError(
        ErrorCodes.Busy,
        `Cannot resume ${path}: another process serves it; stop that one first`,
        { path },
      );
    }
    await sleep(POLL_MS);
  }
}

/** Disconnects an unused device. @throws {ObdError} `Busy` if it is in use; `Io`. */
async function disconnect(
  index: number,
  backend: string,
  withoutReads: WithoutReads,
): Promise<void> {
  // Another program may have disconnected it: then there is nothing to claim.
  if ((await backendOf(index)) !== backend) return;
  const claim = await claimDevice(nodeOf(index), withoutReads);
  try {
    // The open claim holds the device, so from here on another device cannot get the number.
    if ((await backendOf(index)) === backend) await disconnectDevice(index);
  } finally {
    await claim.close();
  }
}

/** @throws {ObdError} `Busy` if another process keeps it open. */
async function untilGone(index: number, backend: string): Promise<void> {
  const deadline = Date.now() + DISAPPEAR_MS;
  while (await isThere(index)) {
    const current = await backendOf(index);
    if (current !== undefined && current !== backend) return;
    if (Date.now() > deadline) {
      const path = nodeOf(index);
      throw new ObdError(ErrorCodes.Busy, `Cannot detach "${path}": a process has it open`, {
        path,
      });
    }
    await sleep(POLL_MS);
  }
}

/**
 * Sets the timer, which waits for the device's current readers; reads the start of the device; then sets `absence`, how
 * long it waits for a server. The first two run in another process: a thread of this one might wait for itself.
 */
async function prepare(index: number, backend: string, absence: number): Promise<void> {
  const args = [requestPatiencePath(index), String(REQUEST_PATIENCE_MS), nodeOf(index)];
  await outputOf('sh', ['-c', PREPARE_SCRIPT, 'sh', ...args], PREPARE_MS);
  await reconfigureDevice({
    index,
    sockets: [],
    deadConnTimeoutSeconds: absence,
    backendIdentifier: backend,
  });
}

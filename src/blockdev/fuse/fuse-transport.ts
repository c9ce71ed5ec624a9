/**
 * The transport that works on every kernel with FUSE and loop: the NBD export, as a file by nbdfuse, as a
 * block device by a loop device.
 *
 *     DIRECTORY/ID/mount/disk    the file: nbdfuse reads it from the NBD socket, /dev/loopN from it
 *     DIRECTORY/ID/pid           the process id of nbdfuse
 *
 *   1. What attach() did in this order, detach() undoes in the other, and so does an attach() that fails.
 *   2. Until the loop device is gone, detach() has changed nothing: a device in use stays as it was.
 *   3. Every step has a time limit, so neither hangs on a kernel or a program that does.
 *   4. The first bytes of the disk are read before there is a device, and through it before it is anyone's. So a disk
 *      that cannot be read fails with its own error and not with EIO, and the limits of 3 are not spent on a registry.
 *
 * Nothing here reads a device from this process: a thread that waits for a device that this process answers
 * could wait for itself. Attaching takes 22 to 62 ms (docs/benchmarks.md).
 */
import { mkdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { readFully } from '../../io/random-access-file.js';
import { outputOf } from '../../io/run-program.js';
import type { NbdServer } from '../nbd/nbd-server.js';
import type { AttachedDevice, Transport } from '../transport.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { attachLoop, releaseLoop } from './loop-device.js';
import { NbdfuseProcess } from './nbdfuse-process.js';

const ID_PATTERN = /^(?!\.\.?$)[A-Za-z0-9._-]{1,64}$/;
export const FILE_NAME = 'disk';
const PROBE_BYTES = 4096;
/** It takes milliseconds, as the bytes are local; this is for a kernel that does not answer. */
const PROBE_MS = 10_000;

/** How to take back one step. */
type Undo = () => Promise<void>;

export class FuseTransport implements Transport {
  readonly name = 'fuse';
  readonly #server: NbdServer;
  readonly #socketPath: string;
  readonly #directory: string;
  /** What failed attaches could not take back, by id; the next attach of the id goes on with it. */
  readonly #leftBehind = new Map<string, Undo[]>();

  /**
   * @param server - Listens at `socketPath`. A disk it exports under the device's id already is read through
   *   that export, and otherwise gets one for as long as the device is there.
   * @param directory - For this transport alone; made when it is first needed. What a daemon that died
   *   left in it, clearFuseDebris() takes away.
   */
  constructor(server: NbdServer, socketPath: string, directory: string) {
    this.#server = server;
    this.#socketPath = socketPath;
    this.#directory = directory;
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    if (!ID_PATTERN.test(id)) {
      throw new ObdError(
        ErrorCodes.InvalidArgument,
        `Cannot attach ${JSON.stringify(id)}: an id is 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-"`,
      );
    }
    await this.#takeBack(id, this.#leftBehind.get(id) ?? []);
    const undo: Undo[] = [];
    try {
      const path = await this.#attach(id, disk, undo);
      return new FuseDevice(path, undo);
    } catch (error) {
      // Why the attach failed matters more. What is never asked for again is debris for the next start.
      await this.#takeBack(id, undo).catch(() => {});
      throw error;
    }
  }

  async #takeBack(id: string, undo: Undo[]): Promise<void> {
    this.#leftBehind.delete(id);
    try {
      await undoAll(undo);
    } catch (error) {
      this.#leftBehind.set(id, undo);
      throw error;
    }
  }

  async #attach(id: string, disk: VirtualDisk, undo: Undo[]): Promise<string> {
    const probeBytes = Math.min(PROBE_BYTES, disk.sizeBytes);
    await readFully(disk, Buffer.alloc(probeBytes), 0);
    const home = await this.#makeHome(id);
    undo.push(() => rm(home, { recursive: true, force: true }));
    const mountPoint = join(home, 'mount');
    await mkdir(mountPoint);

    if (!this.#server.serves(id, disk)) {
      const own = this.#server.addExport(id, disk);
      undo.push(() => own.remove());
    }
    const socket = encodeURIComponent(this.#socketPath);
    const uri = `nbd+unix:///${encodeURIComponent(id)}?socket=${socket}`;
    const pidFile = join(home, 'pid');
    const nbdfuse = await NbdfuseProcess.start(uri, mountPoint, FILE_NAME, pidFile);
    undo.push(() => nbdfuse.stop());

    const backingFile = join(mountPoint, FILE_NAME);
    const path = await attachLoop(backingFile);
    undo.push(() => releaseLoop({ path, backingFile }));
    if (probeBytes > 0) await probe(path, probeBytes);
    return path;
  }

  async #makeHome(id: string): Promise<string> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      // As the kernel's tables will call it.
      const home = join(await realpath(this.#directory), id);
      await mkdir(home, { mode: 0o700 });
      return home;
    } catch (cause) {
      const path = join(this.#directory, id);
      if (systemCode(cause) === 'EEXIST') {
        const message = `Cannot attach "${id}": "${path}" is there, from a device that is attached or was left behind`;
        throw new ObdError(ErrorCodes.Busy, message, { path }, cause);
      }
      const message = `Cannot make the directory "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }
}

class FuseDevice implements AttachedDevice {
  readonly path: string;
  readonly #undo: Undo[];
  readonly #steps: number;
  #detaching: Promise<void> | undefined;

  constructor(path: string, undo: Undo[]) {
    this.path = path;
    this.#undo = undo;
    this.#steps = undo.length;
  }

  /** The first step that detach() takes is to free the loop device. */
  get isGone(): boolean {
    return this.#undo.length < this.#steps;
  }

  async detach(): Promise<void> {
    this.#detaching ??= undoAll(this.#undo).finally(() => {
      this.#detaching = undefined;
    });
    await this.#detaching;
  }
}

/** Last first. A step that fails keeps its place, and those before it theirs, for the next time. */
async function undoAll(undo: Undo[]): Promise<void> {
  for (let step = undo.at(-1); step !== undefined; step = undo.at(-1)) {
    await step();
    undo.pop();
  }
}

/**
 * Reads the start of the device, in a process of its own and without the kernel's readahead.
 * @throws {ObdError} `Io` if it cannot be read.
 */
async function probe(path: string, bytes: number): Promise<void> {
  const what = [`if=${path}`, 'of=/dev/null', `bs=${bytes}`, 'count=1', 'iflag=direct'];
  await outputOf('dd', [...what, 'status=none'], PROBE_MS);
}

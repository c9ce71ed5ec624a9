/**
 * The transport that works on every kernel with FUSE and loop: an NBD export as a file, that file as a block device.
 *
 *     DIRECTORY/ID/disk    the file: its holder (fuse-file.ts) reads it from the NBD socket, /dev/loopN from it
 *     DIRECTORY/ID/log     what the holder has to tell of its servers
 *
 *   1. The disk is exported under the device's id at the socket by whoever calls attach() and resume(), from before the
 *      call until detach() or release() has resolved. Nothing else of a server is known here.
 *   2. A device is whole if there is a loop device on the file, a mount under it and a holder. What else there is of
 *      one is debris. There are no records that could say otherwise.
 *   3. Until the loop device is gone, detach() has changed nothing: a device in use stays as it was. Then go the
 *      mount, the holder and the directory, in this order, each of which may be gone already.
 *   4. Every step has a time limit, so nothing hangs on a kernel or a program that does.
 *   5. The first bytes of the disk are read before there is a device, and through it before it is anyone's. So a disk
 *      that cannot be read fails with its own error and not with EIO, and the limits of 4 are not spent on a registry.
 *
 * Nothing here reads a device from this process: a thread that waits for a device that this process answers
 * could wait for itself.
 */
import { access, mkdir, readdir, realpath, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import { readMountTable } from '../../io/mount-table.js';
import { readFully } from '../../io/random-access-file.js';
import { outputOf } from '../../io/run-program.js';
import { isDeviceId, TakenIds } from '../device-ids.js';
import {
  ABSENCE_SECONDS_MAX,
  type AttachedDevice,
  type Survivor,
  type Transport,
} from '../transport.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { endHolders, fuseFile, listHolders, makeFuseDevice } from './fuse-file.js';
import { unmountFile } from './fuse-mount.js';
import { type LoopDevice, listLoops, loopSectors, releaseLoop, sectorsOf } from './loop-device.js';

const FIRST_BYTES = 4096;
/** A holder connects again within a second, and the bytes are local; this is for one that does not. */
const FIRST_READ_MS = 15_000;

export class FuseTransport implements Transport {
  readonly name = 'fuse';
  readonly #socketPath: string;
  readonly #directory: string;
  readonly #taken = new TakenIds();
  /** Ids whose attach failed and could not be taken back; the next attach of the id begins with that. */
  readonly #leftBehind = new Set<string>();

  /**
   * @param socketPath - Of the NBD server, absolute.
   * @param directory - For this transport alone, absolute; made when it is first needed.
   */
  constructor(socketPath: string, directory: string) {
    this.#socketPath = socketPath;
    this.#directory = directory;
  }

  async missing(): Promise<string | undefined> {
    if (process.getuid?.() !== 0) return 'it takes root';
    if (!(await isThere('/dev/fuse'))) return 'there is no /dev/fuse; `modprobe fuse` brings it';
    if (!(await isThere('/dev/loop-control')))
      return 'there is no /dev/loop-control; `modprobe loop` brings it';
    if (fuseFile() === undefined) return 'native/fuse-file is not built; `npm run build` builds it';
    return undefined;
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#taken.keep(id, 'attach', async () => {
      const missing = await this.missing();
      if (missing !== undefined) {
        const message = `Cannot attach "${id}": fuse cannot be used: ${missing}`;
        throw new ObdError(ErrorCodes.Host, message);
      }
      await readFirst(disk);
      if (this.#leftBehind.has(id)) {
        await this.#clear(id);
        this.#leftBehind.delete(id);
      }
      const home = await this.#makeHome(id);
      const device = await this.#make(id, home).catch(async (error) => {
        // Why the attach failed matters more.
        await this.#clear(id).catch(() => this.#leftBehind.add(id));
        throw error;
      });
      return new FuseDevice(device, home, () => this.#taken.giveBack(id));
    });
  }

  async survivors(): Promise<Survivor[]> {
    const root = await realpath(this.#directory).catch(() => undefined);
    if (root === undefined) return [];
    const wholes = await this.#wholeDevices();
    const ids = (await readdir(root)).filter((id) => isDeviceId(id) && !this.#taken.has(id));
    return ids.map((id) => ({ id, path: wholes.get(join(root, id, 'disk'))?.path }));
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#taken.keep(id, 'resume', async () => {
      const home = await this.#homeOf(id);
      const loop = (await this.#wholeDevices()).get(join(home, 'disk'));
      if (loop === undefined) {
        const message = `Cannot resume "${id}": there is no whole device of it in "${this.#directory}"`;
        throw new ObdError(ErrorCodes.NotFound, message, { path: home });
      }
      const sectors = await loopSectors(loop);
      if (sectors !== sectorsOf(disk.sizeBytes)) {
        throw new ObdError(
          ErrorCodes.FailedPrecondition,
          `Cannot resume ${loop.path} with ${disk.label}: it has ${sectors} sectors, and the disk ${sectorsOf(disk.sizeBytes)}`,
          { path: loop.path },
        );
      }
      await readFirst(disk);
      if (sectors > 0) await readFirstOf(loop.path);
      return new FuseDevice(loop, home, () => this.#taken.giveBack(id));
    });
  }

  async clear(id: string): Promise<void> {
    await this.#taken.borrow(id, 'clear', () => this.#clear(id));
  }

  async #makeHome(id: string): Promise<string> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      const home = await this.#homeOf(id);
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

  /** As the kernel's tables call it, if it is there. */
  async #homeOf(id: string): Promise<string> {
    return join(await realpath(this.#directory).catch(() => this.#directory), id);
  }

  async #make(id: string, home: string): Promise<LoopDevice> {
    const file = join(home, 'disk');
    await writeFile(file, '', { mode: 0o400 });
    const path = await makeFuseDevice({
      socketPath: this.#socketPath,
      exportName: id,
      file,
      log: join(home, 'log'),
      absenceSeconds: ABSENCE_SECONDS_MAX,
    });
    return { path, backingFile: file };
  }

  /** Devices that lack nothing, of whatever transport and daemon, by file. */
  async #wholeDevices(): Promise<Map<string, LoopDevice>> {
    const [loops, mounts, holders] = await Promise.all([
      listLoops(),
      readMountTable(),
      listHolders(),
    ]);
    const mounted = new Set(mounts.map(({ target }) => target));
    const whole = loops.filter(
      ({ backingFile }) => mounted.has(backingFile) && holders.has(backingFile),
    );
    return new Map(whole.map((loop) => [loop.backingFile, loop]));
  }

  async #clear(id: string): Promise<void> {
    const home = await this.#homeOf(id);
    const file = join(home, 'disk');
    const loops = await listLoops();
    for (const loop of loops) if (loop.backingFile === file) await releaseLoop(loop);
    await takeAway(home);
  }
}

class FuseDevice implements AttachedDevice {
  readonly path: string;
  readonly #loop: LoopDevice;
  readonly #home: string;
  readonly #forget: () => void;
  #isGone = false;
  #detaching: Promise<void> | undefined;

  constructor(loop: LoopDevice, home: string, forget: () => void) {
    this.path = loop.path;
    this.#loop = loop;
    this.#home = home;
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

  /** Its disk is read through the export, which is its caller's. */
  async release(): Promise<void> {
    this.#forget();
  }

  async #detach(): Promise<void> {
    if (!this.#isGone) {
      await releaseLoop(this.#loop);
      this.#isGone = true;
    }
    await takeAway(this.#home);
    this.#forget();
  }
}

/** What there is of a device besides the loop device. */
async function takeAway(home: string): Promise<void> {
  const file = join(home, 'disk');
  await unmountFile(file);
  await endHolders(file);
  await rm(home, { recursive: true, force: true });
}

async function isThere(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function readFirst(disk: VirtualDisk): Promise<void> {
  await readFully(disk, Buffer.alloc(Math.min(FIRST_BYTES, disk.sizeBytes)), 0);
}

/**
 * Reads the start of the device, in a process of its own and without the kernel's readahead.
 * @throws {ObdError} `Io` if it cannot be read.
 */
async function readFirstOf(path: string): Promise<void> {
  const what = [`if=${path}`, 'of=/dev/null', `bs=${FIRST_BYTES}`, 'count=1', 'iflag=direct'];
  await outputOf('dd', [...what, 'status=none'], FIRST_READ_MS);
}

/**
 * The transport that works on every kernel with FUSE and loop: an NBD export as a file, that file as a block device.
 *
 *     DIRECTORY/ID/log     the log of the holder (fuse-file.ts), which reads the file from the NBD socket
 *     DIRECTORY/ID/disk    what the kernel calls the file behind /dev/loopN. There is nothing at this path: the file is in
 *                          no mount namespace, so that no backup or search can read an image by accident
 *
 * An earlier version mounted the file at that path. Its devices are resumed, detached and cleared as they are.
 *
 *   1. The disk is exported under the device's id at the socket by the caller of attach() and resume(), from before the
 *      call until detach() or release() has resolved. Nothing else of a server is known here.
 *   2. A device is whole if there is a loop device on the file and a holder. Without the holder it is dead: every read
 *      fails, for good. Any other remains are orphaned. There are no records that could say otherwise.
 *   3. Until the loop device is gone, detach() has changed nothing: a device in use stays as it was. Then go the
 *      holder and the directory, in this order, each of which may be gone already.
 *   4. Every step has a time limit, so nothing hangs on a kernel or a program that does.
 *   5. A dead device is detached and cleared also while it is in use: the loop device goes with its last user, and
 *      the id can be attached anew at once.
 *   6. attach() reads the first bytes of the disk before it makes the device, and through the device before it returns. So a
 *      disk that cannot be read fails with its own error and not with EIO, and no limit of 4 is spent on a registry.
 *
 * Nothing here reads a device from this process: a thread that waits for a device that this process answers
 * could wait for itself.
 */
import { access, mkdir, readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../../errors.js';
import { readFully } from '../../io/random-access-file.js';
import { outputOf } from '../../io/run-program.js';
import { settledPath } from '../../io/settled-path.js';
import { DeviceIdLocks } from '../device-id-locks.js';
import { isDeviceId } from '../device-ids.js';
import { ServedDevice } from '../served-device.js';
import {
  type AttachedDevice,
  absenceSeconds,
  type OrphanedDevice,
  type Transport,
  type TransportSettings,
} from '../transport.js';
import { isWritable, type VirtualDisk, withoutLoads } from '../virtual-disk.js';
import {
  endHolders,
  fuseFile,
  isHolder,
  killHolders,
  listHolders,
  makeFuseDevice,
} from './fuse-file.js';
import { unmountFile } from './fuse-mount.js';
import { HolderWatch } from './holder-watch.js';
import {
  abandonLoop,
  type LoopDevice,
  listLoops,
  loopSectors,
  releaseLoop,
  sectorsOf,
} from './loop-device.js';

const FIRST_BYTES = 4096;
/** A holder connects again within a second, and the bytes are local; this is for one that does not. */
const FIRST_READ_MS = 15_000;

/** A loop device and the process that answers for its file. */
interface HeldLoop extends LoopDevice {
  readonly pid: number;
}

export class FuseTransport implements Transport {
  readonly name = 'fuse';
  readonly capabilities = { write: false, discard: false, resize: false };
  readonly #socketPath: string;
  readonly #directory: string;
  readonly #settings: TransportSettings;
  readonly #watch = new HolderWatch();
  readonly #ids = new DeviceIdLocks();
  /** Ids whose attach failed and could not be taken back; the next attach of the id begins with that. */
  readonly #leftBehind = new Set<string>();

  /**
   * @param socketPath - Of the NBD server, absolute.
   * @param directory - For this transport alone, absolute; made when it is first needed.
   */
  constructor(socketPath: string, directory: string, settings: TransportSettings = {}) {
    this.#socketPath = socketPath;
    this.#directory = directory;
    this.#settings = settings;
  }

  async unavailableReason(): Promise<string | undefined> {
    if (process.getuid?.() !== 0) return 'it takes root';
    if (!(await isThere('/dev/fuse'))) return 'there is no /dev/fuse; `modprobe fuse` brings it';
    if (!(await isThere('/dev/loop-control')))
      return 'there is no /dev/loop-control; `modprobe loop` brings it';
    if (fuseFile() === undefined) return 'native/fuse-file is not built; `npm run build` builds it';
    return undefined;
  }

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'attach', async () => {
      const missing = await this.unavailableReason();
      if (missing !== undefined) {
        const message = `Cannot attach "${id}": fuse cannot be used: ${missing}`;
        throw new ObdError(ErrorCodes.Host, message);
      }
      if (isWritable(disk)) {
        const message = `Cannot attach "${id}": ${disk.label} can be written, and devices of fuse cannot; use another transport`;
        throw new ObdError(ErrorCodes.Unsupported, message, { path: disk.label });
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
      return this.#serve(id, device, home, disk);
    });
  }

  async orphans(): Promise<OrphanedDevice[]> {
    const root = await settledPath(this.#directory);
    const [loops, holders] = await Promise.all([listLoops(), listHolders()]);
    const paths = new Map(loops.map(({ backingFile, path }) => [backingFile, path]));
    // A device that was made while the disk was full has no directory.
    const attached = loops.map(({ backingFile }) => basename(dirname(backingFile)));
    const ofLoops = attached.filter((id) => paths.has(join(root, id, 'disk')));
    const ids = new Set([...(await namesIn(root)), ...ofLoops]);
    const known = [...ids].filter((id) => isDeviceId(id) && !this.#ids.has(id));
    return known.map((id) => {
      const file = join(root, id, 'disk');
      const path = paths.get(file);
      if (path === undefined || holders.has(file)) return { id, path };
      return { id, path: undefined, deadPath: path };
    });
  }

  async resume(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    return await this.#ids.acquire(id, 'resume', async () => {
      const home = await this.#homeOf(id);
      const loop = await this.#wholeDevice(join(home, 'disk'));
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
      return this.#serve(id, loop, home, disk);
    });
  }

  async clear(id: string): Promise<void> {
    await this.#ids.withLock(id, 'clear', () => this.#clear(id));
  }

  async endReads(id: string): Promise<void> {
    await killHolders(join(await this.#homeOf(id), 'disk'));
  }

  /** A disk that is full has no room for the directory: the device then does without its log. */
  async #makeHome(id: string): Promise<string> {
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      const home = await this.#homeOf(id);
      await mkdir(home, { mode: 0o700 });
      return home;
    } catch (cause) {
      const path = join(this.#directory, id);
      const home = isDiskFull(cause) ? await this.#homeOf(id) : undefined;
      const isFree = home !== undefined && !(await isAttached(join(home, 'disk')));
      if (isFree) return home;
      if (home !== undefined || systemCode(cause) === 'EEXIST') {
        const message = `Cannot attach "${id}": "${path}" is there, from a device that is attached or was left behind`;
        throw new ObdError(ErrorCodes.Busy, message, { path }, cause);
      }
      const message = `Cannot make the directory "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  /** As the kernel's tables call it, if it is there. */
  async #homeOf(id: string): Promise<string> {
    return join(await settledPath(this.#directory), id);
  }

  #serve(id: string, loop: HeldLoop, home: string, disk: VirtualDisk): ServedDevice {
    const watch = () => this.#watch.add(loop.pid, () => this.#settings.onDeath?.(id));
    let unwatch = watch();
    return new ServedDevice(id, this.#ids, {
      path: loop.path,
      takeAway: async () => {
        if (!(await isHolder(loop.pid))) return await abandonLoop(loop);
        // The holder ends with the device, and nothing is wrong then.
        unwatch();
        try {
          await releaseLoop(loop, (work) => withoutLoads(disk, work));
        } catch (error) {
          unwatch = watch();
          throw error;
        }
      },
      cleanUp: () => takeAway(home),
      // The disk is read through its export, which the caller removes.
      stopServing: async () => unwatch(),
    });
  }

  async #make(id: string, home: string): Promise<HeldLoop> {
    const file = join(home, 'disk');
    const { path, pid } = await makeFuseDevice({
      socketPath: this.#socketPath,
      exportName: id,
      file,
      log: join(home, 'log'),
      absenceSeconds: absenceSeconds(this.#settings),
    });
    return { path, pid, backingFile: file };
  }

  async #wholeDevice(file: string): Promise<HeldLoop | undefined> {
    const [loops, holders] = await Promise.all([listLoops(), listHolders()]);
    const loop = loops.find(({ backingFile }) => backingFile === file);
    const [pid] = holders.get(file) ?? [];
    return loop && pid !== undefined ? { ...loop, pid } : undefined;
  }

  async #clear(id: string): Promise<void> {
    const home = await this.#homeOf(id);
    const file = join(home, 'disk');
    for (const loop of await listLoops()) {
      if (loop.backingFile !== file) continue;
      if (!(await listHolders()).has(file)) await abandonLoop(loop);
      // Its reads may wait for a server that does not come.
      else await releaseLoop(loop, (work) => killHolders(file).then(work));
    }
    await takeAway(home);
  }
}

/** Removes all of a device but its loop device. */
async function takeAway(home: string): Promise<void> {
  const file = join(home, 'disk');
  await unmountFile(file);
  await endHolders(file);
  await rm(home, { recursive: true, force: true });
}

async function isAttached(file: string): Promise<boolean> {
  return (await listLoops()).some(({ backingFile }) => backingFile === file);
}

/** None if there is no such directory. */
async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
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
 * Reads the start of the device in a separate process, without the kernel's readahead.
 * @throws {ObdError} `Io` if it cannot be read.
 */
async function readFirstOf(path: string): Promise<void> {
  const what = [`if=${path}`, 'of=/dev/null', `bs=${FIRST_BYTES}`, 'count=1', 'iflag=direct'];
  await outputOf('dd', [...what, 'status=none'], FIRST_READ_MS);
}

/**
 * The snapshots' directories:
 *
 *   ROOT/snapshots/            0700
 *     ID/                      0700, the id in decimal
 *       fs/                    a layer's files, a container's upper directory, or `overlaybd.commit` of a local layer
 *       work/                  0711, what overlayfs works in; only of active snapshots
 *       block/                 0711, of a layer that is the top of an image, once it has been used
 *         config.v1.json       0600, what obd-blockd is told to open
 *         mountpoint/          0711, where that is mounted
 *     new-XXXXXX/              a directory being made
 *
 * A directory is made under another name, filled, synced and then renamed, so that one with a number is complete.
 * Removing goes the other way, and never descends into something that is mounted.
 */
import { chmod, chown, mkdir, mkdtemp, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { unmountAll } from '../image/image-mount.js';
import { readMountTable } from '../io/mount-table.js';
import { runProgram } from '../io/run-program.js';
import type { Kind, Usage } from './snapshot.js';

const UNFINISHED = 'new-';
/** As many digits as a number holds, with room to count on. */
const ID = /^[1-9][0-9]{0,14}$/;
/** A layer of a million files, on a disk that has other things to do. */
const REMOVE_TIMEOUT_MS = 600_000;
const USAGE_TIMEOUT_MS = 600_000;

export class SnapshotDirectories {
  /** ROOT/snapshots */
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @throws {ObdError} `Io` if they cannot be made. */
  static async open(root: string): Promise<SnapshotDirectories> {
    const path = join(root, 'snapshots');
    await guarded(path, async () => {
      await mkdir(root, { recursive: true, mode: 0o700 });
      await mkdir(path, { recursive: true, mode: 0o700 });
      await chmod(path, 0o700);
    });
    return new SnapshotDirectories(path);
  }

  of(id: number): string {
    return join(this.path, String(id));
  }

  files(id: number): string {
    return join(this.of(id), 'fs');
  }

  work(id: number): string {
    return join(this.of(id), 'work');
  }

  blockConfig(id: number): string {
    return join(this.of(id), 'block', 'config.v1.json');
  }

  mountPoint(id: number): string {
    return join(this.of(id), 'block', 'mountpoint');
  }

  /** The snapshot that a path in one of these directories belongs to; undefined for any other path. */
  idOf(path: string): number | undefined {
    const [first = '', ...rest] = path.startsWith(`${this.path}/`)
      ? path.slice(this.path.length + 1).split('/')
      : [];
    return rest.length > 0 ? snapshotIdIn(first) : undefined;
  }

  /**
   * Makes the directory of a snapshot; when this returns, it is on the disk.
   *
   * @param like - The directory whose owner and mode `fs` gets: what the container sees as its root directory.
   * @throws {ObdError} `Io`, `NoSpace`; then there is nothing.
   */
  async create(id: number, kind: Kind, like: string | undefined): Promise<void> {
    await guarded(this.of(id), async () => {
      const unfinished = await mkdtemp(join(this.path, UNFINISHED));
      try {
        const files = join(unfinished, 'fs');
        await mkdir(files);
        if (like === undefined) {
          await chmod(files, 0o755);
        } else {
          const { uid, gid, mode } = await stat(like);
          await chown(files, uid, gid);
          await chmod(files, mode & 0o7777);
        }
        if (kind === 'active') await mkdirMode(join(unfinished, 'work'), 0o711);
        await sync(unfinished);
        await rename(unfinished, this.of(id));
        await sync(this.path);
      } catch (error) {
        await rm(unfinished, { recursive: true, force: true });
        throw error;
      }
    });
  }

  /** Makes the place where the device of an image is described and mounted. Idempotent. @throws {ObdError} `Io`. */
  async createBlock(id: number): Promise<void> {
    await guarded(this.of(id), async () => {
      await mkdirMode(this.of(id), 0o700);
      await mkdirMode(join(this.of(id), 'block'), 0o711);
      await mkdirMode(this.mountPoint(id), 0o711);
    });
  }

  /** Whether createBlock() was ever called for it. */
  async hasBlock(id: number): Promise<boolean> {
    return await exists(join(this.of(id), 'block'));
  }

  async has(id: number): Promise<boolean> {
    return await exists(this.of(id));
  }

  /** Gives `fs` the owner and mode of another directory. @throws {ObdError} `Io`. */
  async setRootLike(id: number, like: string): Promise<void> {
    await guarded(like, async () => {
      const { uid, gid, mode } = await stat(like);
      await chown(this.files(id), uid, gid);
      await chmod(this.files(id), mode & 0o7777);
    });
  }

  /**
   * Removes what there is under a name in ROOT/snapshots, mounts in it first. Nothing there is fine.
   *
   * @throws {ObdError} `Busy` if something mounted in it is in use, `Io`; what could not be removed is still there.
   */
  async remove(name: string | number): Promise<void> {
    const path = join(this.path, String(name));
    for (const { target } of (await readMountTable()).toReversed()) {
      if (target.startsWith(`${path}/`)) await unmountAll(target, { lazily: false });
    }
    const args = ['--recursive', '--force', '--one-file-system', '--', path];
    const { status, stderr } = await runProgram('rm', args, REMOVE_TIMEOUT_MS);
    if (status === 0) return;
    throw new ObdError(ErrorCodes.Io, `Cannot remove "${path}": ${stderr}`, { path });
  }

  /** Names of all entries: directories of snapshots, unfinished ones, and any others. */
  async names(): Promise<string[]> {
    return await guarded(this.path, async () => await readdir(this.path));
  }

  /** Disk space and inodes of a snapshot's files; a file with several links counts once. @throws {ObdError} `Io`. */
  async usage(id: number): Promise<Usage> {
    const path = this.files(id);
    const sizeBytes = await diskUsage(path, '--block-size=1');
    return { sizeBytes, inodes: await diskUsage(path, '--inodes') };
  }
}

/** The id in the name of a snapshot's directory; undefined for any other name. */
export function snapshotIdIn(name: string): number | undefined {
  return ID.test(name) ? Number(name) : undefined;
}

/** Whether a name is that of an unfinished directory. At a start, no call is making one. */
export function isUnfinished(name: string): boolean {
  return name.startsWith(UNFINISHED);
}

/** Exit status 1 with a number is a walk during which files went away, as they do in a running container. */
async function diskUsage(path: string, unit: string): Promise<number> {
  const args = ['--summarize', '--one-file-system', unit, '--', path];
  const { stdout, stderr } = await runProgram('du', args, USAGE_TIMEOUT_MS);
  const amount = Number.parseInt(stdout, 10);
  if (Number.isSafeInteger(amount)) return amount;
  throw new ObdError(ErrorCodes.Io, `Cannot tell what "${path}" takes: ${stderr}`, { path });
}

async function exists(path: string): Promise<boolean> {
  return await guarded(path, async () => {
    try {
      await stat(path);
      return true;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
  });
}

/** Ignores the umask. Leaves an existing directory as it is: an image with a dead device may be mounted on it. */
async function mkdirMode(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return;
    throw error;
  }
  await chmod(path, mode);
}

async function sync(directory: string): Promise<void> {
  const handle = await open(directory);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function guarded<T>(path: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    const system = systemCode(error);
    if (system === undefined) throw error;
    const full = isDiskFull(error);
    const found = full
      ? `Cannot write to "${path}": the disk is full; make room, or remove images that are not needed`
      : `Cannot use "${path}": ${messageOf(error)}`;
    throw new ObdError(full ? ErrorCodes.NoSpace : ErrorCodes.Io, found, { path }, error);
  }
}

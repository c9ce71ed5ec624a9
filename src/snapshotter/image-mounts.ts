/**
 * One device and one read-only mount for each image that containers use, whatever their number.
 *
 *   1. ensure() makes device and mount, or finds them sound: it runs at each Prepare, View and Mounts, and so repairs what
 *      a reboot took away, or 600 s without a daemon. Calls for one image at one time share one attempt.
 *   2. If it fails there is neither device nor mount that was not there before.
 *   3. release() takes both away, or as much as can be at the moment. What could not (the daemon is down, a container
 *      that was killed still holds the device) is debris: sweep() finds it without anybody's records, as debris is a
 *      device whose config lies in our directories, or a mount there, with no snapshot. It runs at start, at containerd's
 *      garbage collections and some seconds after the attempts of a release were used up.
 *   4. All that is done to one image is done in turn.
 *
 * Order of writes: the image's config (atomically) before its device, the device before the mount; the mount goes
 * before the device. So at any time a kill leaves only what ensure() completes or sweep() takes away.
 */
import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Device } from '../blockd/blockd-client.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { type ImageConfig, writeImageConfig } from '../image/image-config.js';
import { readMountTable } from '../io/mount-table.js';
import { deviceAnswers, mountAt, mountImage, unmountAll } from './image-mount.js';
import type { Log } from './log.js';
import type { SnapshotDirectories } from './snapshot-directories.js';
import { Turns } from './turns.js';

const SWEEP_AGAIN_MS = 15_000;
const RELEASE_PAUSES_MS = [200, 1_000, 3_000];
/** containerd prepares the next layer of an image within milliseconds of the commit of one. */
const LEAVE_MS = 5_000;
/** A registry that cannot be reached has taken the daemon longer to find out. */
const DAEMON_RESTART_MS_MAX = 3_000;
const DAEMON_RESTART_TURN_MS = 100;

/** These are about snapshots to whoever asked for one: that a blob or a device exists or does not, is another matter. */
const SNAPSHOT_CODES: readonly string[] = [
  ErrorCodes.NotFound,
  ErrorCodes.AlreadyExists,
  ErrorCodes.InvalidArgument,
];

/** What of obd-blockd's client is needed here. */
export interface Devices {
  attach(id: string, configPath: string): Promise<Device>;
  detach(id: string): Promise<void>;
  endReads(id: string): Promise<void>;
  list(): Promise<Device[]>;
}

export interface MountableImage {
  /** Of the snapshot of its topmost layer. */
  readonly id: number;
  readonly config: ImageConfig;
  /** For messages: which image, of which registry. */
  readonly description: string;
}

export class ImageMounts {
  readonly #directories: SnapshotDirectories;
  readonly #devices: Devices;
  readonly #log: Log;
  /** So that two snapshotters with one daemon do not meet. */
  readonly #devicePrefix: string;
  readonly #turns = new Turns<number>();
  readonly #ensuring = new Map<number, Promise<string>>();
  /** Whether an image has a snapshot: if not, what there is of it is debris. */
  readonly #isKnown: (id: number) => boolean;
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Of images to be released later, by id. */
  readonly #leaving = new Map<number, NodeJS.Timeout>();
  /** So that a daemon that is away for hours is told of once. */
  #sweepFailed = false;
  #closed = false;

  constructor(
    directories: SnapshotDirectories,
    devices: Devices,
    isKnown: (id: number) => boolean,
    log: Log,
  ) {
    this.#directories = directories;
    this.#devices = devices;
    this.#isKnown = isKnown;
    this.#log = log;
    const hash = createHash('sha256').update(directories.path).digest('hex');
    this.#devicePrefix = `snapshot-${hash.slice(0, 8)}`;
  }

  /**
   * Where the image is mounted.
   *
   * @throws {ObdError} with the code of what failed (the daemon, the registry behind it, the mount), but for codes that
   *   would say something about a snapshot: `FailedPrecondition` then.
   */
  async ensure(image: MountableImage): Promise<string> {
    const { id } = image;
    const under = this.#ensuring.get(id);
    if (under !== undefined) return await under;
    const attempt = this.#turns.run(id, async () => {
      try {
        return await this.#attachAndMount(image);
      } catch (error) {
        throw this.#failure(image, error);
      }
    });
    this.#ensuring.set(id, attempt);
    try {
      return await attempt;
    } finally {
      this.#ensuring.delete(id);
    }
  }

  /**
   * Takes away mount and device of an image. Never throws, unless `isKept` does. What cannot be taken away at once is
   * tried again without the caller, and then left to sweep().
   * @param isKept - Asked in the image's turn whether there is nothing to take away, or it is wanted.
   */
  async release(id: number, isKept: () => boolean | Promise<boolean>): Promise<void> {
    await this.#turns.run(id, async () => {
      if ((await isKept()) || (await this.#letGo(id))) return;
      // Without its snapshot it is wanted no more, whatever `isKept` looks at.
      void this.#releaseAgain(id, async () => this.#isKnown(id) && (await isKept()));
    });
  }

  /** As release(), after some seconds: a layer that was just committed is likely to have the next one put on it. */
  releaseLater(id: number, isKept: () => boolean): void {
    clearTimeout(this.#leaving.get(id));
    if (this.#closed) return;
    const release = () => {
      this.#leaving.delete(id);
      // Removing its snapshot has released it, too.
      void this.release(id, () => !this.#isKnown(id) || isKept());
    };
    this.#leaving.set(id, setTimeout(release, LEAVE_MS).unref());
  }

  /** A container that starts has copies of all mounts for a moment, and a killed one may hold the device for some more. */
  async #releaseAgain(id: number, isKept: () => Promise<boolean>): Promise<void> {
    for (const pauseMs of RELEASE_PAUSES_MS) {
      await pause(pauseMs, undefined, { ref: false });
      if (this.#closed) return;
      const isDone = await this.#turns.run(
        id,
        async () => (await isKept()) || (await this.#letGo(id)),
      );
      if (isDone) return;
    }
    this.#log.warn({ snapshotId: id }, 'an image could not be let go of yet: trying again');
    this.#sweepSoon();
  }

  /** Takes away devices and mounts of snapshots that are no more. Never throws: what it cannot do, it reports. */
  async sweep(): Promise<void> {
    clearTimeout(this.#sweepTimer);
    this.#sweepTimer = undefined;
    const ids = new Set<number>();
    try {
      for (const { target } of await readMountTable()) this.#addDebris(ids, target);
      for (const { configPath } of await this.#devices.list()) this.#addDebris(ids, configPath);
      this.#sweepFailed = false;
    } catch (error) {
      const what =
        'devices without a snapshot cannot be looked for: trying again from time to time';
      if (!this.#sweepFailed) this.#log.warn({ err: error }, what);
      this.#sweepFailed = true;
      this.#sweepSoon();
    }
    for (const id of ids) {
      this.#log.info({ snapshotId: id }, 'taking away a device or mount without a snapshot');
      await this.release(id, () => this.#isKnown(id));
    }
  }

  /** Mounts and devices stay: containers use them. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#sweepTimer);
    for (const timer of this.#leaving.values()) clearTimeout(timer);
  }

  async #attachAndMount({ id, config }: MountableImage): Promise<string> {
    const target = this.#directories.mountPoint(id);
    const configPath = this.#directories.blockConfig(id);
    await this.#directories.createBlock(id);
    await writeImageConfig(configPath, config);
    const device = await this.#attach(id, configPath);
    const mounted = await mountAt(target);
    if (mounted?.source === device.path && (await deviceAnswers(device.path))) return target;
    try {
      const sound = mounted === undefined ? device : await this.#replaced(id, configPath, device);
      await mountImage(sound.path, target);
      return target;
    } catch (error) {
      if (!(await this.#letGo(id))) this.#sweepSoon();
      throw error;
    }
  }

  /** A device that answers, in the place of one that no longer does or that is not the one mounted. */
  async #replaced(id: number, configPath: string, device: Device): Promise<Device> {
    this.#log.warn(
      { snapshotId: id, device: device.path },
      'mounting an image anew: its device died',
    );
    await unmountAll(this.#directories.mountPoint(id), { lazily: true });
    if (await deviceAnswers(device.path)) return device;
    await this.#devices.detach(this.#deviceId(id));
    return await this.#attach(id, configPath);
  }

  /** Waits for a daemon that is being restarted: that is no reason to refuse a container. */
  async #attach(id: number, configPath: string): Promise<Device> {
    const deadline = Date.now() + DAEMON_RESTART_MS_MAX;
    for (;;) {
      try {
        return await this.#devices.attach(this.#deviceId(id), configPath);
      } catch (error) {
        if (!hasCode(error, ErrorCodes.Unavailable) || Date.now() >= deadline) throw error;
        await pause(DAEMON_RESTART_TURN_MS);
      }
    }
  }

  /** @returns Whether nothing of it is left. */
  async #letGo(id: number): Promise<boolean> {
    const deviceId = this.#deviceId(id);
    try {
      const endReads = () => this.#devices.endReads(deviceId);
      await unmountAll(this.#directories.mountPoint(id), { lazily: false, endReads });
      await this.#devices.detach(deviceId);
      return true;
    } catch (error) {
      this.#log.info({ snapshotId: id, err: error }, 'image still in use');
      return false;
    }
  }

  #addDebris(ids: Set<number>, path: string): void {
    const id = this.#directories.idOf(path);
    if (id !== undefined && !this.#isKnown(id)) ids.add(id);
  }

  #deviceId(id: number): string {
    return `${this.#devicePrefix}-${id}`;
  }

  #sweepSoon(): void {
    if (this.#closed || this.#sweepTimer !== undefined) return;
    this.#sweepTimer = setTimeout(() => void this.sweep(), SWEEP_AGAIN_MS).unref();
  }

  #failure({ description }: MountableImage, error: unknown): unknown {
    if (!(error instanceof ObdError)) return error;
    const remedy = hasCode(error, ErrorCodes.Unauthorized)
      ? 'give obd-blockd credentials for this registry'
      : 'see the log of obd-blockd, and check with "obdctl doctor"';
    const found = `Cannot serve ${description}: ${messageOf(error)}; ${remedy}`;
    const code = SNAPSHOT_CODES.includes(error.code) ? ErrorCodes.FailedPrecondition : error.code;
    return new ObdError(code, found, error.details, error);
  }
}

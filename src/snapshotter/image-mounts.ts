/**
 * One device and one read-only mount for each image in use, shared by all its containers.
 *
 *   1. ensure() makes device and mount, or checks that they work. It runs at each Prepare, View and Mounts, and so
 *      repairs the loss of them by a reboot or 600 s without a daemon. Concurrent calls for one image share one attempt.
 *   2. If ensure() fails, it leaves no new device or mount.
 *   3. release() removes both, or as much as it can at the moment. The rest (the daemon is down, a killed container
 *      still holds the device) is orphaned. sweep() needs no records to find it: a device is orphaned if its
 *      config is in our directories and it has no snapshot, and so is a mount there. It runs at start, at containerd's
 *      garbage collections and some seconds after the retries of a release were used up.
 *   4. Operations on one image run one after the other.
 *
 * Order of writes: the image's config (atomically) before its device, the device before the mount; the mount is removed
 * before the device. So a kill at any time leaves only state that ensure() completes or sweep() removes.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Device } from '../blockd/blockd-client.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { type ImageConfig, writeImageConfig } from '../image/image-config.js';
import { deviceAnswers, mountAt, mountImage, unmountAll } from '../image/image-mount.js';
import { readMountTable } from '../io/mount-table.js';
import { msSince } from './call-log.js';
import { KeyedMutex } from './keyed-mutex.js';
import type { Log } from './log.js';
import type { SnapshotDirectories } from './snapshot-directories.js';

const SWEEP_AGAIN_MS = 15_000;
const RELEASE_PAUSES_MS = [200, 1_000, 3_000];
/** containerd prepares the next layer of an image within milliseconds of the commit of one. */
const RELEASE_DELAY_MS = 5_000;
/** The daemon takes longer than this to report an unreachable registry, so that error is not retried. */
const DAEMON_RESTART_MS_MAX = 3_000;
const DAEMON_RESTART_TURN_MS = 100;
/** A cached read takes milliseconds. After this, the daemon is asked whether the device waits for its registry. */
const PROBE_TURN_MS = 2_000;

/** A caller reads these codes as statements about its snapshot; here they are about a blob or a device. */
const SNAPSHOT_CODES: readonly string[] = [
  ErrorCodes.NotFound,
  ErrorCodes.AlreadyExists,
  ErrorCodes.InvalidArgument,
];

/** The calls of obd-blockd's client that are used here. */
export interface Devices {
  attach(id: string, configPath: string): Promise<Device>;
  detach(id: string): Promise<void>;
  endReads(id: string): Promise<void>;
  list(): Promise<Device[]>;
}

export interface MountableImage {
  /** Id of the snapshot of its topmost layer. */
  readonly id: number;
  readonly config: ImageConfig;
  /** For messages: which image, of which registry. */
  readonly description: string;
}

export class ImageMounts {
  readonly #directories: SnapshotDirectories;
  readonly #devices: Devices;
  readonly #log: Log;
  /** Keeps device ids of snapshotters that share a daemon distinct. */
  readonly #devicePrefix: string;
  readonly #locks = new KeyedMutex<number>();
  readonly #ensuring = new Map<number, Promise<string>>();
  /** Whether an image has a snapshot: if not, its device and mount are orphaned. */
  readonly #isKnown: (id: number) => boolean;
  #sweepTimer: NodeJS.Timeout | undefined;
  /** Timers of images to release later, by id. */
  readonly #releaseTimers = new Map<number, NodeJS.Timeout>();
  /** Logs an outage of the daemon once, even if it lasts for hours. */
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
   * @returns The mount point of the image.
   * @throws {ObdError} with the code of the failure (the daemon, the registry behind it, the mount);
   *   `FailedPrecondition` replaces codes that would say something about a snapshot.
   */
  async ensure(image: MountableImage): Promise<string> {
    const { id } = image;
    const under = this.#ensuring.get(id);
    if (under !== undefined) {
      this.#log.debug({ snapshotId: id }, 'another call mounts this image, waiting for it');
      return await under;
    }
    const attempt = this.#locks.withLock(id, async () => {
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
   * Removes mount and device of an image. Never throws, unless `isKept` does. A failed removal is retried in the
   * background, and then left to sweep().
   * @param isKept - Called under the image's lock; true if there is nothing to remove, or the image is in use.
   */
  async release(id: number, isKept: () => boolean | Promise<boolean>): Promise<void> {
    await this.#locks.withLock(id, async () => {
      if ((await isKept()) || (await this.#unmountAndDetach(id))) return;
      // An image without a snapshot is not kept, even if `isKept` says so.
      void this.#releaseAgain(id, async () => this.#isKnown(id) && (await isKept()));
    });
  }

  /** As release(), after some seconds: a client is likely to put the next layer on one that was just committed. */
  releaseLater(id: number, isKept: () => boolean): void {
    clearTimeout(this.#releaseTimers.get(id));
    if (this.#closed) return;
    const release = () => {
      this.#releaseTimers.delete(id);
      // remove() of its snapshot has released it already.
      void this.release(id, () => !this.#isKnown(id) || isKept());
    };
    this.#releaseTimers.set(id, setTimeout(release, RELEASE_DELAY_MS).unref());
  }

  /** A starting container holds copies of all mounts for a moment, and a killed one may hold the device for longer. */
  async #releaseAgain(id: number, isKept: () => Promise<boolean>): Promise<void> {
    for (const pauseMs of RELEASE_PAUSES_MS) {
      await sleep(pauseMs, undefined, { ref: false });
      if (this.#closed) return;
      const isDone = await this.#locks.withLock(
        id,
        async () => (await isKept()) || (await this.#unmountAndDetach(id)),
      );
      if (isDone) return;
    }
    this.#log.warn({ snapshotId: id }, 'image release failed, will retry');
    this.#sweepSoon();
  }

  /** Removes devices and mounts of removed snapshots. Never throws: it logs failures. */
  async sweep(): Promise<void> {
    clearTimeout(this.#sweepTimer);
    this.#sweepTimer = undefined;
    const ids = new Set<number>();
    try {
      for (const { target } of await readMountTable()) this.#addOrphan(ids, target);
      for (const { configPath } of await this.#devices.list()) this.#addOrphan(ids, configPath);
      this.#sweepFailed = false;
    } catch (error) {
      const what = 'search for orphaned devices failed, will retry';
      if (!this.#sweepFailed) this.#log.warn({ err: error }, what);
      this.#sweepFailed = true;
      this.#sweepSoon();
    }
    for (const id of ids) {
      this.#log.info({ snapshotId: id }, 'removing orphaned device or mount');
      await this.release(id, () => this.#isKnown(id));
    }
  }

  /** Mounts and devices stay: containers use them. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#sweepTimer);
    for (const timer of this.#releaseTimers.values()) clearTimeout(timer);
  }

  async #attachAndMount({ id, config }: MountableImage): Promise<string> {
    const target = this.#directories.mountPoint(id);
    const configPath = this.#directories.blockConfig(id);
    await this.#directories.createBlock(id);
    await writeImageConfig(configPath, config);
    const startedMs = performance.now();
    const device = await this.#attach(id, configPath);
    const about = { snapshotId: id, device: device.path, layers: config.lowers.length };
    this.#log.debug({ ...about, ms: msSince(startedMs) }, 'image device attached');
    const mounted = await mountAt(target);
    if (mounted?.source === device.path && (await this.#isAlive(id, device))) {
      this.#log.debug(about, 'image is mounted and its device answers');
      return target;
    }
    try {
      const sound = mounted === undefined ? device : await this.#replaced(id, configPath, device);
      await mountImage(sound.path, target);
      const done = { ...about, device: sound.path, ms: msSince(startedMs) };
      this.#log.debug(done, 'image mounted');
      return target;
    } catch (error) {
      // A mount(8) that timed out may wait in the kernel for the registry, and hold the device. No container has it yet.
      if (mounted === undefined) await this.#devices.endReads(this.#deviceId(id)).catch(() => {});
      if (!(await this.#unmountAndDetach(id))) this.#sweepSoon();
      throw error;
    }
  }

  /** Whether a device answers, or its server holds reads that wait for a registry. */
  async #isAlive(id: number, { path }: Device): Promise<boolean> {
    const answering = deviceAnswers(path);
    // Only the race below handles a rejection.
    answering.catch(() => {});
    for (;;) {
      const turn = sleep(PROBE_TURN_MS, undefined, { ref: false });
      const answers = await Promise.race([answering, turn]);
      if (answers !== undefined) return answers;
      const devices = await this.#devices.list().catch(() => []);
      const device = devices.find((each) => each.id === this.#deviceId(id));
      if (device?.state !== 'attached' || device.waitingReads === 0) continue;
      const about = { snapshotId: id, device: path, reason: device.waitingReason };
      this.#log.info(about, 'image device waits for its registry');
      return true;
    }
  }

  /** Unmounts the image and returns a device that answers: this one, or a new one in its place. */
  async #replaced(id: number, configPath: string, device: Device): Promise<Device> {
    this.#log.warn(
      { snapshotId: id, device: device.path },
      'image device died, mounting the image again',
    );
    await unmountAll(this.#directories.mountPoint(id), { lazily: true });
    if (await this.#isAlive(id, device)) return device;
    await this.#devices.detach(this.#deviceId(id));
    return await this.#attach(id, configPath);
  }

  /** Waits while the daemon restarts: a restart must not fail a container's start. */
  async #attach(id: number, configPath: string): Promise<Device> {
    const deadline = Date.now() + DAEMON_RESTART_MS_MAX;
    for (;;) {
      try {
        return await this.#devices.attach(this.#deviceId(id), configPath);
      } catch (error) {
        if (!hasCode(error, ErrorCodes.Unavailable) || Date.now() >= deadline) throw error;
        this.#log.debug({ snapshotId: id, err: error }, 'obd-blockd does not answer, will retry');
        await sleep(DAEMON_RESTART_TURN_MS);
      }
    }
  }

  /** @returns Whether both mount and device are gone. */
  async #unmountAndDetach(id: number): Promise<boolean> {
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

  #addOrphan(ids: Set<number>, path: string): void {
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

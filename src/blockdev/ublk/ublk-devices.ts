/**
 * The owner and the id of each ublk device of this kernel. A device carries two numbers of its server's choice: here a
 * hash of the daemon's directory, and one of the device's id. The ids themselves are names of empty files in that
 * directory:
 *
 *   1. A device's file is there before the device is added, and until it is deleted. So every device that a crash leaves
 *      has a file.
 *   2. If two ids have the same hash, only one of them can have a file, so that no device is taken for another one.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, readdir, readlink, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../../errors.js';
import type { UblkControl } from './ublk-control.js';
import type { DeviceInfo } from './ublk-protocol.js';

/** The kernel's list, which is right where /dev is not the whole one. */
const CLASS_FOLDER = '/sys/class/ublk-char';
const NODE_PATTERN = /^ublkc([0-9]+)$/;

export class UblkDevices {
  readonly #directory: string;

  /** @param directory - As Transport's: it is made when the first device is. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Takes the id for a device that is about to be added, and returns the numbers it has to carry.
   * @throws {ObdError} `Busy` if the id is taken, `Io`.
   */
  async claim(id: string): Promise<{ owner: number; name: number }> {
    const path = join(this.#directory, id);
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await (await open(path, 'wx', 0o600)).close();
    } catch (cause) {
      if (systemCode(cause) === 'EEXIST') throw busy(id, path, 'is there', cause);
      const message = `Cannot make "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
    const name = hash(id);
    for (const other of await readdir(this.#directory)) {
      if (other === id || hash(other) !== name) continue;
      await this.release(id);
      throw busy(id, join(this.#directory, other), 'has the same hash');
    }
    return { owner: hash(await realpath(this.#directory)), name };
  }

  /** The ids of all devices that are there, or were when a process died. */
  async ids(): Promise<string[]> {
    try {
      return await readdir(this.#directory);
    } catch (cause) {
      if (systemCode(cause) === 'ENOENT') return [];
      const path = this.#directory;
      throw new ObdError(
        ErrorCodes.Io,
        `Cannot read "${path}": ${messageOf(cause)}`,
        { path },
        cause,
      );
    }
  }

  async has(id: string): Promise<boolean> {
    return (await this.ids()).includes(id);
  }

  /** Releases the id of a deleted device. Idempotent. */
  async release(id: string): Promise<void> {
    const path = join(this.#directory, id);
    try {
      await rm(path, { force: true });
    } catch (cause) {
      const message = `Cannot remove "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  /** The devices of this directory, by id. */
  async list(control: UblkControl): Promise<Map<string, DeviceInfo>> {
    const found = new Map<string, DeviceInfo>();
    const ids = new Map((await this.ids()).map((id) => [hash(id), id]));
    if (ids.size === 0) return found;
    const owner = hash(await realpath(this.#directory));
    // No such folder, no driver.
    for (const entry of await readdir(CLASS_FOLDER).catch(() => [])) {
      const deviceId = Number(NODE_PATTERN.exec(entry)?.[1] ?? Number.NaN);
      if (Number.isNaN(deviceId)) continue;
      const info = await control.info(deviceId);
      if (info === undefined || info.owner !== owner) continue;
      const id = ids.get(info.name);
      if (id !== undefined) found.set(id, info);
    }
    return found;
  }
}

/** Whether this process serves the device, in whichever of its threads. */
export async function isServedHere(deviceId: number): Promise<boolean> {
  const path = characterPath(deviceId);
  for (const fd of await readdir('/proc/self/fd')) {
    if ((await readlink(`/proc/self/fd/${fd}`).catch(() => '')) === path) return true;
  }
  return false;
}

export function characterPath(deviceId: number): string {
  return `/dev/ublkc${deviceId}`;
}

export function blockPath(deviceId: number): string {
  return `/dev/ublkb${deviceId}`;
}

function hash(text: string): number {
  return createHash('sha256').update(text).digest().readUInt32LE();
}

function busy(id: string, path: string, why: string, cause?: unknown): ObdError {
  const message = `Cannot attach "${id}": "${path}" ${why}, of a device that is attached or was left behind`;
  return new ObdError(ErrorCodes.Busy, message, { path }, cause);
}

/**
 * Where the devices of one run of the daemon live, and what is left of earlier runs.
 *
 *     STATE/devices/run-XXXXXX/ID/...
 *
 * Each run has a directory of its own, so that a device which a killed daemon left, and which somebody still has
 * mounted, is in the way of no new device with its id. Such a device answers EIO for good: it lost its server.
 * It goes when clearPast() finds it unmounted.
 */
import { mkdtemp, readdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { clearFuseDebris } from '../blockdev/fuse/fuse-debris.js';
import { systemCode } from '../errors.js';

export interface PastDevices {
  /** Ids of devices. */
  readonly cleared: readonly string[];
  readonly inUse: readonly string[];
}

const NOTHING: PastDevices = { cleared: [], inUse: [] };

export class RunDirectory {
  readonly path: string;
  #past: readonly string[];
  #clearing: Promise<PastDevices> | undefined;

  private constructor(path: string, past: readonly string[]) {
    this.path = path;
    this.#past = past;
  }

  /** @param devices - An existing directory that no other process uses. */
  static async make(devices: string): Promise<RunDirectory> {
    const past = (await readdir(devices)).map((name) => join(devices, name));
    return new RunDirectory(await mkdtemp(join(devices, 'run-')), past);
  }

  /**
   * Takes away what earlier runs left and nobody uses any more. Costs nothing once there is nothing.
   *
   * @throws {ObdError} `Host`, `Io`.
   */
  async clearPast(): Promise<PastDevices> {
    if (this.#past.length === 0) return NOTHING;
    this.#clearing ??= this.#clear().finally(() => {
      this.#clearing = undefined;
    });
    return await this.#clearing;
  }

  async #clear(): Promise<PastDevices> {
    const cleared: string[] = [];
    const inUse: string[] = [];
    const left: string[] = [];
    for (const run of this.#past) {
      const found = await clearFuseDebris(run);
      cleared.push(...found.cleared);
      inUse.push(...found.inUse);
      if (found.inUse.length > 0) left.push(run);
      else await removeEmpty(run);
    }
    this.#past = left;
    return { cleared, inUse };
  }

  /** Devices that are still there keep it. */
  async remove(): Promise<void> {
    await removeEmpty(this.path);
  }
}

async function removeEmpty(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY'].includes(systemCode(error) ?? '')) throw error;
  }
}

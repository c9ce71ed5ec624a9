/**
 * What the daemon has to know of a device to serve it again after it was killed: one small file each.
 *
 *     STATE/devices/ID.json    {"version":1,"id":…,"configPath":…,"transport":…}
 *
 * A record is written before anything of the device is made and removed when nothing of it is left, so each device
 * that survives has one, and not each record a device.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { TRANSPORT_NAMES } from '../blockdev/transport.js';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { isUnfinished, replaceFile } from '../io/replace-file.js';

const SUFFIX = '.json';

const deviceRecord = z.object({
  version: z.literal(1),
  id: z.string(),
  configPath: z.string(),
  transport: z.enum(TRANSPORT_NAMES),
});

export type DeviceRecord = Readonly<Omit<z.infer<typeof deviceRecord>, 'version'>>;

export class DeviceRecords {
  readonly #directory: string;

  /** @param directory - There, and this daemon's alone. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  /** @throws {ObdError} `Io`. */
  async put(record: DeviceRecord): Promise<void> {
    const path = this.#pathOf(record.id);
    const text = `${JSON.stringify({ version: 1, ...record })}\n`;
    try {
      await replaceFile(path, 0o600, (file) => file.writeFile(text));
    } catch (cause) {
      const message = `Cannot write "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  /** Idempotent. @throws {ObdError} `Io`. */
  async remove(id: string): Promise<void> {
    const path = this.#pathOf(id);
    try {
      await rm(path, { force: true });
    } catch (cause) {
      const message = `Cannot remove "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  /**
   * All there are; what a crash left of one that was being written goes. One that cannot be read is reported, and
   * stays for somebody to look at.
   * @throws {ObdError} `Io`.
   */
  async all(report: (problem: ObdError) => void): Promise<DeviceRecord[]> {
    const records: DeviceRecord[] = [];
    for (const name of await this.#names()) {
      const path = join(this.#directory, name);
      try {
        const { version, ...record } = deviceRecord.parse(JSON.parse(await readFile(path, 'utf8')));
        if (`${record.id}${SUFFIX}` === name) records.push(record);
        else report(unusable(path, `it is of "${record.id}"`));
      } catch (cause) {
        report(unusable(path, messageOf(cause), cause));
      }
    }
    return records;
  }

  async #names(): Promise<string[]> {
    try {
      const names = await readdir(this.#directory);
      for (const name of names.filter(isUnfinished)) await rm(join(this.#directory, name));
      return names.filter((name) => name.endsWith(SUFFIX));
    } catch (cause) {
      const path = this.#directory;
      const message = `Cannot list the records of devices in "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  #pathOf(id: string): string {
    return join(this.#directory, `${id}${SUFFIX}`);
  }
}

function unusable(path: string, why: string, cause?: unknown): ObdError {
  const message = `Cannot use the record of a device "${path}": ${why}; remove it if the device is not wanted`;
  return new ObdError(ErrorCodes.Corrupt, message, { path }, cause);
}

/**
 * Records that let the daemon serve its devices again after it was killed: one small file each.
 *
 *     STATE/devices/ID.json    {"version":1,"id":…,"configPath":…,"transport":…}
 *
 * A full disk has no room even for that. Then the cache is asked to evict something. If that does not help, the record is
 * written next to the control socket, on the file system of /run. A device and its record both end with the kernel, so
 * no record is lost while it is needed.
 *
 * A record is written before anything of the device is made, and removed when nothing of it is left. So each surviving
 * device has a record, but a record may have no device.
 */
import { mkdir, readdir, readFile, rm, statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { TRANSPORT_NAMES } from '../blockdev/transport.js';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { isUnfinished, replaceFile } from '../io/replace-file.js';

const SUFFIX = '.json';
/** For a device's record, directories and log. */
const ROOM_BYTES = 64 * 1024;

const deviceRecord = z.object({
  version: z.literal(1),
  id: z.string(),
  configPath: z.string(),
  transport: z.enum(TRANSPORT_NAMES),
});

export type DeviceRecord = Readonly<Omit<z.infer<typeof deviceRecord>, 'version'>>;

export class DeviceRecords {
  readonly #directory: string;
  readonly #spareDirectory: string;
  readonly #makeRoom: () => Promise<boolean>;

  /**
   * @param directory - Belongs to this daemon alone; made when it is needed.
   * @param spareDirectory - For records that find no room in `directory`; made when it is needed.
   * @param makeRoom - Frees room in `directory`; false if that is not possible.
   */
  constructor(directory: string, spareDirectory: string, makeRoom: () => Promise<boolean>) {
    this.#directory = directory;
    this.#spareDirectory = spareDirectory;
    this.#makeRoom = makeRoom;
  }

  /**
   * Also makes room for the directory that the device makes next to the records.
   * @throws {ObdError} `NoSpace` where no file system has room, `Io`.
   */
  async put(record: DeviceRecord): Promise<void> {
    const path = this.#pathOf(record.id, this.#directory);
    const text = `${JSON.stringify({ version: 1, ...record })}\n`;
    const write = (to: string) => replaceFile(to, 0o600, (file) => file.writeFile(text));
    // A disk that was full at the daemon's start had no room for the directory.
    const makeDirectory = () => mkdir(this.#directory, { recursive: true, mode: 0o700 });
    try {
      await makeDirectory();
      const { bfree, bsize } = await statfs(this.#directory);
      if (bfree * bsize < ROOM_BYTES) await this.#makeRoom();
      await write(path);
    } catch (cause) {
      if (!isDiskFull(cause)) throw cannotWrite(path, cause);
      try {
        if (await this.#makeRoom()) {
          await makeDirectory();
          return await write(path);
        }
      } catch (again) {
        if (!isDiskFull(again)) throw cannotWrite(path, again);
      }
      await this.#putSpare(record.id, write);
    }
  }

  async #putSpare(id: string, write: (to: string) => Promise<void>): Promise<void> {
    const path = this.#pathOf(id, this.#spareDirectory);
    try {
      await mkdir(this.#spareDirectory, { recursive: true, mode: 0o700 });
      await write(path);
    } catch (cause) {
      throw cannotWrite(path, cause);
    }
  }

  /** Idempotent. @throws {ObdError} `Io`. */
  async remove(id: string): Promise<void> {
    for (const directory of [this.#directory, this.#spareDirectory]) {
      const path = this.#pathOf(id, directory);
      try {
        await rm(path, { force: true });
      } catch (cause) {
        const message = `Cannot remove "${path}": ${messageOf(cause)}`;
        throw new ObdError(ErrorCodes.Io, message, { path }, cause);
      }
    }
  }

  /**
   * All records. Removes files that a crash left half written. An unreadable record is reported, and stays for an
   * operator to look at.
   * @throws {ObdError} `Io`.
   */
  async all(report: (problem: ObdError) => void): Promise<DeviceRecord[]> {
    const records: DeviceRecord[] = [];
    for (const path of [
      ...(await this.#paths(this.#spareDirectory)),
      ...(await this.#paths(this.#directory)),
    ]) {
      try {
        const { version, ...record } = deviceRecord.parse(JSON.parse(await readFile(path, 'utf8')));
        if (`${record.id}${SUFFIX}` === basename(path)) records.push(record);
        else report(unusable(path, `it is of "${record.id}"`));
      } catch (cause) {
        report(unusable(path, messageOf(cause), cause));
      }
    }
    return records;
  }

  async #paths(directory: string): Promise<string[]> {
    try {
      const names = await readdir(directory);
      for (const name of names.filter(isUnfinished)) await rm(join(directory, name));
      return names.filter((name) => name.endsWith(SUFFIX)).map((name) => join(directory, name));
    } catch (cause) {
      if (systemCode(cause) === 'ENOENT') return [];
      const path = directory;
      const message = `Cannot list the records of devices in "${path}": ${messageOf(cause)}`;
      throw new ObdError(ErrorCodes.Io, message, { path }, cause);
    }
  }

  #pathOf(id: string, directory: string): string {
    return join(directory, `${id}${SUFFIX}`);
  }
}

function cannotWrite(path: string, cause: unknown): ObdError {
  const code = isDiskFull(cause) ? ErrorCodes.NoSpace : ErrorCodes.Io;
  return new ObdError(code, `Cannot write "${path}": ${messageOf(cause)}`, { path }, cause);
}

function unusable(path: string, why: string, cause?: unknown): ObdError {
  const message = `Cannot use the record of a device "${path}": ${why}; remove it if the device is not wanted`;
  return new ObdError(ErrorCodes.Corrupt, message, { path }, cause);
}

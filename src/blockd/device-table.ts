/**
 * The devices of this daemon, by id.
 *
 *   1. Attaching is idempotent and single-flight: all callers that attach an id at the same time get the same device, or
 *      the same error.
 *   2. Attaching, recovering and detaching of one id never overlap; different ids do not wait for each other.
 *   3. Detaching a busy device fails with `Busy` and changes nothing.
 *   4. attach() never returns a device that is dead or half detached: it detaches that first, and attaches the image anew.
 *   5. There is a record of a device (device-records.ts) from before anything of it exists until nothing does.
 *
 * A device that an earlier process left is in the table from the start and is served when its image can be opened;
 * until then its reads wait in the kernel, and attach() of it waits here.
 */
import { isAbsolute } from 'node:path';
import { checkDeviceId } from '../blockdev/device-ids.js';
import type { Transport, TransportName } from '../blockdev/transport.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { Device } from './blockd-client.js';
import {
  type DeviceEntry,
  describeEntry,
  type RecoverableDevice,
  Recovery,
} from './device-entry.js';
import type { DeviceHost, HostedDevice } from './device-host.js';
import type { DeviceRecords } from './device-records.js';

export interface TableDependencies {
  readonly host: DeviceHost;
  readonly records: DeviceRecords;
  /** To take away orphans that are not served. */
  readonly transports: Readonly<Record<TransportName, Pick<Transport, 'clear' | 'endReads'>>>;
  /** Which transports to try, best first. @throws {ObdError} `Host` if there is none. */
  readonly candidates: () => Promise<readonly TransportName[]>;
  readonly nbdSocketPath: string;
  /** Reports a problem that was handled. */
  readonly report: (problem: {
    readonly id: string;
    readonly msg: string;
    readonly err: unknown;
    readonly transport?: TransportName;
    /** The transport that is tried in its place. */
    readonly next?: TransportName | undefined;
  }) => void;
}

export class DeviceTable {
  readonly #dependencies: TableDependencies;
  readonly #entries = new Map<string, DeviceEntry>();
  #closed = false;

  constructor(dependencies: TableDependencies) {
    this.#dependencies = dependencies;
  }

  /**
   * @throws {ObdError} `AlreadyExists` if the id is attached from another config, `InvalidArgument`, and what opening the
   *   image and attaching a device throw.
   */
  async attach(id: string, configPath: string): Promise<Device> {
    checkRequest(id, configPath);
    for (let entry = this.#entries.get(id); entry !== undefined; entry = this.#entries.get(id)) {
      if (entry.detaching === undefined) {
        if (entry.configPath !== configPath) throw otherConfig(id, entry.configPath, configPath);
        const device = await entry.device;
        if (!device.isGone && !device.isDead) return this.#describe(id, entry);
        await this.detach(id);
        continue;
      }
      // The caller of detach() sees its failure; the next turn sees the resulting state.
      await entry.detaching.catch(() => {});
    }
    if (this.#closed) throw ending(id);
    const entry: DeviceEntry = { configPath, device: this.#attach(id, configPath) };
    this.#entries.set(id, entry);
    await entry.device;
    return this.#describe(id, entry);
  }

  async #attach(id: string, configPath: string): Promise<HostedDevice> {
    try {
      const [transport, device] = await this.#attachByBest(id, configPath);
      Object.assign(this.#entries.get(id)!, { transport, current: device });
      return device;
    } catch (error) {
      this.#entries.delete(id);
      throw error;
    }
  }

  async #attachByBest(
    id: string,
    configPath: string,
  ): Promise<readonly [TransportName, HostedDevice]> {
    const { host, records, candidates, report } = this.#dependencies;
    const names = [...(await candidates())];
    for (;;) {
      const transport = names.shift()!;
      await records.put({ id, configPath, transport });
      try {
        return [transport, await host.attach(id, configPath, transport)];
      } catch (err) {
        if (names.length === 0 || !hasCode(err, ErrorCodes.Host)) {
          // Why the attach failed matters more; the next start removes a record of nothing.
          await records.remove(id).catch(() => {});
          throw err;
        }
        report({ id, msg: 'transport failed, trying the next', transport, next: names[0], err });
      }
    }
  }

  /**
   * Takes over a device that an earlier process attached; its id must not be in the table.
   *
   * @returns Whether the first attempt to serve it succeeded. If not, it is retried until the device is detached.
   */
  async recover({ record, path }: RecoverableDevice): Promise<boolean> {
    const { id, configPath, transport } = record;
    const { host, report } = this.#dependencies;
    const recovery = new Recovery(
      path,
      () => host.resume(id, configPath, transport),
      (err) => report({ id, msg: 'device recovery failed, will retry; reads are waiting', err }),
    );
    const entry: DeviceEntry = { configPath, device: recovery.device, transport, recovery };
    this.#entries.set(id, entry);
    recovery.device.then(
      (device) => {
        entry.current = device;
      },
      () => {},
    );
    return await recovery.firstAttempt;
  }

  /**
   * @returns Whether there was such a device.
   * @throws {ObdError} `Busy` while the device is in use.
   */
  async detach(id: string): Promise<boolean> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return false;
    entry.detaching ??= this.#detach(id, entry).finally(() => {
      entry.detaching = undefined;
    });
    await entry.detaching;
    return true;
  }

  /**
   * Answers the waiting reads of a device with EIO, for a caller that removes its last mount and has to wait for them.
   * @throws {ObdError} `Io`.
   */
  async endReads(id: string): Promise<void> {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.current !== undefined) await entry.current.endReads();
    else if (entry.recovery !== undefined) {
      await this.#dependencies.transports[entry.transport!].endReads?.(id);
    }
  }

  async #detach(id: string, entry: DeviceEntry): Promise<void> {
    entry.recovery?.stop();
    let device: HostedDevice;
    try {
      device = await entry.device;
    } catch (error) {
      // A failed attach made no device, and its caller has the error. An orphan still has to be cleared.
      if (entry.recovery !== undefined) await this.#clear(id, entry, entry.recovery, error);
      return;
    }
    await device.detach();
    await this.#removeEntry(id);
  }

  /** Takes away an orphan that could not be served. If that fails (e.g. it is in use), recovery starts again. */
  async #clear(
    id: string,
    entry: DeviceEntry,
    { path }: Recovery,
    problem: unknown,
  ): Promise<void> {
    const { transports } = this.#dependencies;
    const { configPath, transport } = entry;
    try {
      await transports[transport!].clear(id);
    } catch (error) {
      if (this.#closed) throw error;
      void this.recover({ record: { id, configPath, transport: transport! }, path });
      const recovering = this.#entries.get(id)?.recovery;
      if (recovering !== undefined) recovering.problem ||= String(problem);
      throw error;
    }
    await this.#removeEntry(id);
  }

  async #removeEntry(id: string): Promise<void> {
    this.#entries.delete(id);
    await this.#dependencies.records.remove(id);
  }

  /** All devices attached or recovering, without those still attaching. */
  list(): Device[] {
    return [...this.#entries].flatMap(
      ([id, entry]) => describeEntry(id, entry, this.#dependencies.nbdSocketPath) ?? [],
    );
  }

  #describe(id: string, entry: DeviceEntry): Device {
    return describeEntry(id, entry, this.#dependencies.nbdSocketPath)!;
  }

  /**
   * Refuses new devices, detaches unused ones, and leaves the others in the kernel for the next process.
   *
   * @returns The ids of those left, each with why it could not be detached.
   */
  async close(): Promise<Map<string, Error>> {
    this.#closed = true;
    const kept = new Map<string, Error>();
    await Promise.all(
      [...this.#entries].map(async ([id, entry]) => {
        try {
          await this.detach(id);
        } catch (error) {
          kept.set(id, error as Error);
          // The next process finds a half-detached device as well, as an orphan.
          await entry.current?.release().catch((err: unknown) => {
            this.#dependencies.report({
              id,
              msg: 'device release failed, the next run removes what is left',
              err,
            });
          });
        }
      }),
    );
    return kept;
  }
}

function checkRequest(id: string, configPath: string): void {
  checkDeviceId(id, 'attach');
  if (!isAbsolute(configPath)) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot attach "${id}": the path of its config, ${JSON.stringify(configPath)}, is not absolute`,
    );
  }
}

function otherConfig(id: string, attached: string, wanted: string): ObdError {
  return new ObdError(
    ErrorCodes.AlreadyExists,
    `Cannot attach "${id}" from "${wanted}": it is attached from "${attached}"; detach it first`,
    { path: wanted },
  );
}

function ending(id: string): ObdError {
  return new ObdError(
    ErrorCodes.Unavailable,
    `Cannot attach "${id}": obd-blockd is being stopped; try again when it runs`,
  );
}

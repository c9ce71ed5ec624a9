/**
 * The devices of this daemon, by id.
 *
 *   1. Attaching is idempotent and single-flight: whoever asks for an id while it is being attached gets the same device,
 *      or the same error.
 *   2. Of one id, attaching and detaching never overlap; different ids do not wait for each other.
 *   3. A device that is in use stays as it was when it is to be detached.
 *   4. One that could be detached in part only is given to nobody: attaching finishes that first.
 *
 * The table is in memory only. What a daemon that died had attached is dead with it, because each device reads
 * through a connection to the daemon; who needs one asks for it again.
 */
import { isAbsolute } from 'node:path';
import { ErrorCodes, ObdError } from '../errors.js';
import type { Device } from './blockd-client.js';
import { ExportedImage, type ExportPath } from './exported-image.js';

/** Also file names and NBD export names. */
const ID_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;

interface Slot {
  readonly configPath: string;
  /** Rejects, and is gone from the table, if the image cannot be attached. */
  readonly exported: Promise<ExportedImage>;
  /** The same without waiting, once it is there. */
  current?: ExportedImage;
  detaching?: Promise<void> | undefined;
}

export class DeviceTable {
  readonly #path: ExportPath;
  readonly #slots = new Map<string, Slot>();
  #closed = false;

  constructor(path: ExportPath) {
    this.#path = path;
  }

  /**
   * @throws {ObdError} `AlreadyExists` if the id is attached from another config, `InvalidArgument`, and what opening the
   *   image and attaching a device throw.
   */
  async attach(id: string, configPath: string): Promise<Device> {
    checkRequest(id, configPath);
    for (let slot = this.#slots.get(id); slot !== undefined; slot = this.#slots.get(id)) {
      if (slot.detaching === undefined) {
        if (slot.configPath !== configPath) throw otherConfig(id, slot.configPath, configPath);
        const exported = await slot.exported;
        if (!exported.isHalfDetached) return exported.describe();
        await this.detach(id);
        continue;
      }
      // Whether that works out is for its caller to know; the next turn sees what came of it.
      await slot.detaching.catch(() => {});
    }
    if (this.#closed) throw ending(id);
    const slot: Slot = { configPath, exported: this.#export(id, configPath) };
    this.#slots.set(id, slot);
    slot.current = await slot.exported;
    return slot.current.describe();
  }

  async #export(id: string, configPath: string): Promise<ExportedImage> {
    try {
      return await ExportedImage.attach(id, configPath, this.#path);
    } catch (error) {
      this.#slots.delete(id);
      throw error;
    }
  }

  /**
   * @returns Whether there was such a device.
   * @throws {ObdError} `Busy` while the device is in use.
   */
  async detach(id: string): Promise<boolean> {
    const slot = this.#slots.get(id);
    if (slot === undefined) return false;
    slot.detaching ??= this.#detach(id, slot);
    await slot.detaching;
    return true;
  }

  async #detach(id: string, slot: Slot): Promise<void> {
    let exported: ExportedImage;
    try {
      exported = await slot.exported;
    } catch {
      // It never was there; whoever wanted it has been told why.
      return;
    }
    try {
      await exported.detach();
      this.#slots.delete(id);
    } finally {
      slot.detaching = undefined;
    }
  }

  /** What is attached; what is on its way is not. */
  list(): Device[] {
    const devices: Device[] = [];
    for (const { current } of this.#slots.values()) {
      if (current !== undefined) devices.push(current.describe());
    }
    return devices;
  }

  /** Refuses new devices and takes away those that nobody uses. @returns Why the others are still there. */
  async close(): Promise<Error[]> {
    this.#closed = true;
    const ids = [...this.#slots.keys()];
    const results = await Promise.allSettled(ids.map((id) => this.detach(id)));
    return results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  }
}

function checkRequest(id: string, configPath: string): void {
  if (!ID_PATTERN.test(id)) {
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `Cannot attach ${JSON.stringify(id)}: an id is 1 to 64 of A-Z, a-z, 0-9, ".", "_", "-", and no "." first`,
    );
  }
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

/** The ids of devices: what may be one, which of them a transport has at the moment, and whose they are in the kernel. */
import { createHash } from 'node:crypto';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { settledPath } from '../io/settled-path.js';

/** Also file names, names in configfs and NBD export names. */
const ID_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;

export function isDeviceId(id: string): boolean {
  return ID_PATTERN.test(id);
}

/** @param action - As in "Cannot ACTION". @throws {ObdError} `InvalidArgument` for what is no id. */
export function checkDeviceId(id: string, action: string): void {
  if (isDeviceId(id)) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot ${action} ${JSON.stringify(id)}: an id is 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", and begins with no "."`,
  );
}

/** Ids of devices that are attached, or become or cease to be, by one transport. */
export class TakenIds {
  readonly #ids = new Set<string>();

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** The device, or what was made of it, is gone or another's. Idempotent. */
  giveBack(id: string): void {
    this.#ids.delete(id);
  }

  /**
   * Takes the id for as long as `make` runs, and if a device comes of it until that is given back.
   * @throws {ObdError} `InvalidArgument`, `Busy` if it is taken; what `make` throws.
   */
  async keep<T>(id: string, action: string, make: () => Promise<T>): Promise<T> {
    checkDeviceId(id, action);
    if (this.#ids.has(id)) {
      const message = `Cannot ${action} "${id}": this process serves or changes it`;
      throw new ObdError(ErrorCodes.Busy, message);
    }
    this.#ids.add(id);
    try {
      return await make();
    } catch (error) {
      this.#ids.delete(id);
      throw error;
    }
  }

  /** Takes the id for as long as `work` runs. @throws {ObdError} as keep(). */
  async borrow(id: string, action: string, work: () => Promise<void>): Promise<void> {
    await this.keep(id, action, work);
    this.giveBack(id);
  }
}

/**
 * The key in the names of this daemon's kernel objects: a hash of its directory, which need not exist.
 * @throws {ObdError} `Io`.
 */
export async function daemonKey(directory: string): Promise<string> {
  try {
    const hash = createHash('sha256').update(await settledPath(directory));
    return hash.digest('hex').slice(0, 16);
  } catch (cause) {
    const message = `Cannot look at the directory "${directory}": ${messageOf(cause)}`;
    throw new ObdError(ErrorCodes.Io, message, { path: directory }, cause);
  }
}

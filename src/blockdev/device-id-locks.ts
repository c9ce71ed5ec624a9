/** Which device ids one transport has acquired: of devices that it serves, makes or takes away. */
import { ErrorCodes, ObdError } from '../errors.js';
import { checkDeviceId } from './device-ids.js';

export class DeviceIdLocks {
  readonly #ids = new Set<string>();

  has(id: string): boolean {
    return this.#ids.has(id);
  }

  /** Idempotent, but must not be called again once another device may have acquired the id. */
  release(id: string): void {
    this.#ids.delete(id);
  }

  /**
   * Acquires the id and runs `make`. The id stays acquired, until release(), if `make` succeeds.
   * @param action - As in "Cannot ACTION".
   * @throws {ObdError} `InvalidArgument`, `Busy` if it is acquired; what `make` throws.
   */
  async acquire<T>(id: string, action: string, make: () => Promise<T>): Promise<T> {
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

  /** Runs `work` with the id acquired. @throws {ObdError} as acquire(). */
  async withLock(id: string, action: string, work: () => Promise<void>): Promise<void> {
    await this.acquire(id, action, work);
    this.release(id);
  }
}

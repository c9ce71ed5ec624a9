/**
 * A device that this process serves: the life cycle that all transports share. A transport gives the steps.
 *
 *   1. detach() and release() run once at a time: a call during a run waits for that run. A failed run can be repeated.
 *   2. The node is taken away once. When cleaning up behind it fails, the next detach() continues there.
 *   3. The id is released once, with the device: a later call must not release the id of another device.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { DeviceIdLocks } from './device-id-locks.js';
import type { AttachedDevice } from './transport.js';

export interface DeviceSteps {
  readonly path: string;
  /** Takes the node away if it has no user. @throws {ObdError} `Busy` if it has, which changes nothing; `Io`. */
  takeAway(): Promise<void>;
  /** Frees everything behind the node. Idempotent. @throws {ObdError} `Busy`, `Io`. */
  cleanUp(): Promise<void>;
  /** Stops serving, and leaves the device in the kernel. Resolves when the disk is not read any more. */
  stopServing(): Promise<void>;
  /** Whether another program has taken the node away. */
  isTakenAway?(): boolean;
}

export class ServedDevice implements AttachedDevice {
  readonly path: string;
  readonly #id: string;
  readonly #ids: DeviceIdLocks;
  readonly #steps: DeviceSteps;
  #isGone = false;
  #detaching: Promise<void> | undefined;
  #releasing: Promise<void> | undefined;

  /** @param ids - Has the id acquired; it is released when the device is detached or released. */
  constructor(id: string, ids: DeviceIdLocks, steps: DeviceSteps) {
    this.path = steps.path;
    this.#id = id;
    this.#ids = ids;
    this.#steps = steps;
  }

  get isGone(): boolean {
    return this.#isGone || this.#steps.isTakenAway?.() === true;
  }

  async detach(): Promise<void> {
    if (this.#releasing !== undefined) {
      throw new ObdError(
        ErrorCodes.FailedPrecondition,
        `Cannot detach "${this.path}": it was released, for the next process to resume`,
        { path: this.path },
      );
    }
    this.#detaching ??= this.#detach().catch((error: unknown) => {
      this.#detaching = undefined;
      throw error;
    });
    await this.#detaching;
  }

  async release(): Promise<void> {
    this.#releasing ??= this.#release().catch((error: unknown) => {
      this.#releasing = undefined;
      throw error;
    });
    await this.#releasing;
  }

  async #detach(): Promise<void> {
    if (!this.isGone) await this.#steps.takeAway();
    this.#isGone = true;
    await this.#steps.cleanUp();
    this.#ids.release(this.#id);
  }

  async #release(): Promise<void> {
    const isDetached = await this.#detaching?.then(
      () => true,
      () => false,
    );
    if (isDetached === true) return;
    await this.#steps.stopServing();
    this.#ids.release(this.#id);
  }
}

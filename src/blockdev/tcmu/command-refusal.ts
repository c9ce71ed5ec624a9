/**
 * Answers every command of a device that is being cleared away with an error, so that no process in the kernel waits for
 * an answer: least of all the process that is about to make its link, or to remove it.
 */
import { CommandRing } from './command-ring.js';
import { Senses } from './scsi-sense.js';
import type { UioDevice } from './uio-device.js';

export class CommandRefusal {
  readonly #uio: UioDevice;
  readonly #ring: CommandRing;

  /** @throws {ObdError} `Unsupported` if this kernel's ring is of another kind. */
  constructor(uio: UioDevice) {
    this.#uio = uio;
    this.#ring = new CommandRing(uio.ring);
  }

  wake(): void {
    while (this.#ring.next()) this.#ring.complete(this.#ring.id, Senses.NoUnit);
    this.#uio.kick();
  }
}

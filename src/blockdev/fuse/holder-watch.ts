/**
 * Detects the end of a device's holder, which leaves the device dead: every read of it fails.
 *
 * By polling: a holder is no child of this process, and Node has no pidfd. A poll is one readlink() per device.
 */
import { isHolder } from './fuse-file.js';

/** The watch has to notice a death within a second. */
const LOOK_MS = 250;

export class HolderWatch {
  readonly #watched = new Map<number, () => void>();
  #timer: NodeJS.Timeout | undefined;

  /**
   * @param onDeath - Called once, when the process has ended.
   * @returns Ends the watching. Idempotent.
   */
  add(pid: number, onDeath: () => void): () => void {
    this.#watched.set(pid, onDeath);
    this.#timer ??= setInterval(() => void this.#look(), LOOK_MS).unref();
    return () => this.#remove(pid);
  }

  #remove(pid: number): void {
    this.#watched.delete(pid);
    if (this.#watched.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #look(): Promise<void> {
    for (const pid of [...this.#watched.keys()]) {
      if (await isHolder(pid)) continue;
      const onDeath = this.#watched.get(pid);
      this.#remove(pid);
      onDeath?.();
    }
  }
}

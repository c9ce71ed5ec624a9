/**
 * SIGHUP in a daemon, from the first line of the program on: the default action would end it.
 *
 * Imports nothing, so that a program can load it before everything else.
 */
export class Reloading {
  #reload: (() => Promise<void>) | undefined;
  #isPending = false;
  #running: Promise<void> = Promise.resolve();

  /** SIGHUP no longer ends the process. A SIGHUP before answer() stays pending until then. */
  constructor() {
    process.on('SIGHUP', () => {
      this.#isPending = true;
      this.#run();
    });
  }

  /** Makes SIGHUP call `reload`, one call at a time; at once if a SIGHUP is pending. @param reload - Never rejects. */
  answer(reload: () => Promise<void>): void {
    this.#reload = reload;
    this.#run();
  }

  #run(): void {
    const reload = this.#reload;
    if (!this.#isPending || reload === undefined) return;
    this.#isPending = false;
    this.#running = this.#running.then(reload);
  }
}

/** Starts threads from this program's own modules, both in the build and in the sources. */
import { statSync } from 'node:fs';
import { extname } from 'node:path';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** The module that a thread starts with. */
export class ThreadProgram {
  readonly #entry: URL;
  readonly #identity: string | undefined;

  /**
   * @param module - The URL of the starter's own module, import.meta.url.
   * @param name - The thread's module, relative to `module`, without its extension.
   */
  constructor(module: string, name: string) {
    this.#entry = new URL(`${name}${extname(module)}`, module);
    this.#identity = identityOf(this.#entry);
  }

  /** Whether the file is still the original one: an upgrade may replace it with that of another version. */
  isUnchanged(): boolean {
    return this.#identity !== undefined && identityOf(this.#entry) === this.#identity;
  }

  start(options: WorkerOptions): Worker {
    if (extname(this.#entry.pathname) !== '.ts') return new Worker(this.#entry, options);
    // Node 20 loads tsx, which compiles the sources, in the first thread only; other threads must register it.
    const tsx = JSON.stringify(import.meta.resolve('tsx/esm/api'));
    const entry = JSON.stringify(this.#entry.href);
    const script = `(await import(${tsx})).register(); await import(${entry});`;
    return new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`), options);
  }
}

function identityOf(entry: URL): string | undefined {
  const found = statSync(entry, { throwIfNoEntry: false });
  return found === undefined ? undefined : `${found.dev}:${found.ino}:${found.mtimeMs}`;
}

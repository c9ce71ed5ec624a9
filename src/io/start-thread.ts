/** Threads of this program's own modules, from the build as from the sources. */
import { statSync } from 'node:fs';
import { extname } from 'node:path';
import { Worker, type WorkerOptions } from 'node:worker_threads';

/** The module that a thread starts with. */
export class ThreadProgram {
  readonly #entry: URL;
  readonly #identity: string | undefined;

  /**
   * @param module - The URL of the starter's own module, import.meta.url.
   * @param name - Of the thread's, relative to it, without its extension.
   */
  constructor(module: string, name: string) {
    this.#entry = new URL(`${name}${extname(module)}`, module);
    this.#identity = identityOf(this.#entry);
  }

  /** Whether the file is the one that was there at first: an upgrade may put that of another version in its place. */
  isUnchanged(): boolean {
    return this.#identity !== undefined && identityOf(this.#entry) === this.#identity;
  }

  start(options: WorkerOptions): Worker {
    if (extname(this.#entry.pathname) !== '.ts') return new Worker(this.#entry, options);
    // Node 20 has the loader that understands the sources, tsx, in the first thread only; each has to ask for it.
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

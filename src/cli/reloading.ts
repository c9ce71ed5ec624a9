/**
 * SIGHUP in a daemon: its configuration file is read again, and what can be changed in a running daemon is.
 *
 * A file that is wrong changes nothing. The log says which keys were reloaded, and which take a restart.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import type * as z from 'zod';
import { readConfigFile } from '../config/config-file.js';

export interface Reloadable<C extends object> {
  readonly path: string;
  readonly mayBeMissing: boolean;
  readonly schema: z.ZodType<C>;
  /** What the daemon was started with. */
  readonly config: C;
  /** @returns The keys that are in effect now. @throws what is wrong with a value; nothing has changed then. */
  readonly apply: (config: C) => readonly (keyof C)[];
  readonly log: Logger;
}

export class Reloading {
  #reload: (() => Promise<void>) | undefined;
  #isPending = false;
  #running: Promise<void> = Promise.resolve();

  /** From here on SIGHUP does not end the process. One that comes before the daemon serves waits for answer(). */
  constructor() {
    process.on('SIGHUP', () => {
      this.#isPending = true;
      this.#run();
    });
  }

  /** What SIGHUP does once the daemon serves. */
  answer<C extends object>(daemon: Reloadable<C>): void {
    const current = { ...daemon.config };
    this.#reload = async () => await reload(daemon, current);
    this.#run();
  }

  #run(): void {
    const reload = this.#reload;
    if (!this.#isPending || reload === undefined) return;
    this.#isPending = false;
    this.#running = this.#running.then(reload);
  }
}

/** Never rejects. @param current - The values in effect; changed here. */
async function reload<C extends object>(daemon: Reloadable<C>, current: C): Promise<void> {
  const { path, mayBeMissing, schema, apply, log } = daemon;
  try {
    const fresh = await readConfigFile(path, schema, { mayBeMissing });
    const liveKeys = apply(fresh);
    // A key that is gone from one of them counts, too.
    const keys = Object.keys({ ...current, ...fresh }) as (keyof C)[];
    const changed = keys.filter((key) => !isDeepStrictEqual(current[key], fresh[key]));
    const reloaded = changed.filter((key) => liveKeys.includes(key));
    const needRestart = changed.filter((key) => !liveKeys.includes(key));
    for (const key of reloaded) current[key] = fresh[key];
    log.info({ path, reloaded }, 'configuration and logins reloaded');
    if (needRestart.length > 0) {
      log.warn({ path, keys: needRestart }, 'changed keys not reloaded, they take a restart');
    }
  } catch (err) {
    log.error({ path, err }, 'configuration not reloaded, the one before stays in effect');
  }
}

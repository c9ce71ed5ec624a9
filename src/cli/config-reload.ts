/**
 * Reloads the configuration file of a running daemon, and applies the keys that can change without a restart.
 *
 * An invalid file changes nothing. The log says which keys were reloaded, and which need a restart.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import type * as z from 'zod';
import { readConfigFile } from '../config/config-file.js';

export interface Reloadable<C extends object> {
  readonly path: string;
  readonly mayBeMissing: boolean;
  readonly schema: z.ZodType<C>;
  /** The configuration at the daemon's start. */
  readonly config: C;
  /** @returns The keys that it applied. @throws if a value is wrong, before it changes anything. */
  readonly apply: (config: C) => readonly (keyof C)[];
  readonly log: Logger;
}

/** Returns the function that Reloading.answer() takes. */
export function configReload<C extends object>(daemon: Reloadable<C>): () => Promise<void> {
  const current = { ...daemon.config };
  return async () => await reload(daemon, current);
}

/** Never rejects. @param current - The values in effect; changed here. */
async function reload<C extends object>(daemon: Reloadable<C>, current: C): Promise<void> {
  const { path, mayBeMissing, schema, apply, log } = daemon;
  try {
    const fresh = await readConfigFile(path, schema, { mayBeMissing });
    const liveKeys = apply(fresh);
    // Includes keys that only one of the two has.
    const keys = Object.keys({ ...current, ...fresh }) as (keyof C)[];
    const changed = keys.filter((key) => !isDeepStrictEqual(current[key], fresh[key]));
    const reloaded = changed.filter((key) => liveKeys.includes(key));
    const needRestart = changed.filter((key) => !liveKeys.includes(key));
    for (const key of reloaded) current[key] = fresh[key];
    log.info({ path, reloaded }, 'configuration and logins reloaded');
    if (needRestart.length > 0) {
      log.warn(
        { path, keys: needRestart },
        'changed keys not reloaded, restart the daemon to apply them',
      );
    }
  } catch (err) {
    log.error({ path, err }, 'configuration not reloaded, the previous one stays in effect');
  }
}

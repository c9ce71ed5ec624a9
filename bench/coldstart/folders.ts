/** Where the benchmark finds the repository, and keeps what is made once. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The repository, for this file in `bench/` as well as in `dist/bench/`. */
export const ROOT = repositoryRoot();

/** A folder in the cache directory of the tests; may be removed at any time. */
export function cacheFolder(): string {
  return join(process.env['OBD_TS_CACHE'] || '/var/cache/obd-ts', 'coldstart');
}

function repositoryRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) root = dirname(root);
  return root;
}

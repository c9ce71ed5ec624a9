/**
 * Finds and loads one of this repository's native add-ons, from the sources as from the build: the
 * add-on of native/NAME is native/NAME/build/Release/TARGET.node, in the nearest folder above this
 * file that has it.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';

/** src/io lies two folders below the root, dist/src/io three. */
const LEVELS_MAX = 3;

/**
 * @returns The add-on's exports; the caller states their type, next to the C++ that defines it.
 * @throws {ObdError} `Host` if it was not built, or was built for another Node or machine.
 */
export function loadNativeAddon(name: string, target: string): unknown {
  const relative = join('native', name, 'build', 'Release', `${target}.node`);
  let folder = import.meta.dirname;
  for (let level = 0; level < LEVELS_MAX; level++) {
    folder = dirname(folder);
    const path = join(folder, relative);
    if (!existsSync(path)) continue;
    try {
      return createRequire(import.meta.url)(path);
    } catch (error) {
      throw new ObdError(
        ErrorCodes.Host,
        `Cannot load "${path}": ${messageOf(error)}; rebuild it with \`npm run build\``,
        { path },
        error,
      );
    }
  }
  throw new ObdError(
    ErrorCodes.Host,
    `Cannot find the native add-on "${relative}": build it with \`npm run build\``,
    { path: relative },
  );
}

/** Loads this repository's native add-ons: that of native/NAME is native/NAME/build/Release/TARGET.node. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { findProgramFile } from './program-files.js';

/**
 * Call it when a module is loaded, not later: an upgrade may replace the file.
 *
 * @returns The add-on's exports; the caller states their type, next to the C++ that defines it.
 * @throws {ObdError} `Host` if it was not built, or was built for another Node or machine.
 */
export function loadNativeAddon(name: string, target: string): unknown {
  const relative = join('native', name, 'build', 'Release', `${target}.node`);
  const path = findProgramFile(relative);
  if (path === undefined) {
    throw new ObdError(
      ErrorCodes.Host,
      `Cannot find the native add-on "${relative}": build it with \`npm run build\``,
      { path: relative },
    );
  }
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

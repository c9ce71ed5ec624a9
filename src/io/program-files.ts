/**
 * Finds the files that a program needs besides its JavaScript: native add-ons, fuse-file, .proto files.
 *
 * The build has all of them in the folder of its programs (tools/bundle.js), so an installed program needs nothing
 * outside that folder. The sources, and what tsc makes of them for tests, use those at the root of the repository.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** dist/src/io lies three folders below the root. */
const LEVELS_MAX = 3;

/** @returns The absolute path; undefined if neither this module's folder nor one above it has the file. */
export function findProgramFile(relative: string): string | undefined {
  let folder = import.meta.dirname;
  for (let level = 0; level <= LEVELS_MAX; level++) {
    const path = join(folder, relative);
    if (existsSync(path)) return path;
    folder = dirname(folder);
  }
  return undefined;
}

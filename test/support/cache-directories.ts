/** Directories for caches in tests, and what a crash would leave of one. */
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const made: string[] = [];

export function cacheDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'obd-cache-'));
  made.push(directory);
  return directory;
}

/** To call when the tests of a file are over. */
export function removeCacheDirectories(): void {
  for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
}

/** A copy as another process would find it if the one that uses `directory` were killed now. */
export function crashedCopy(directory: string): string {
  const copy = cacheDirectory();
  cpSync(directory, copy, { recursive: true });
  rmSync(join(copy, 'lock'), { force: true });
  return copy;
}

/** The cache files of the blobs, by full path. */
export function blobFiles(directory: string): string[] {
  const blobs = join(directory, 'blobs');
  const registries = readdirSync(blobs).map((name) => join(blobs, name));
  return registries.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
}

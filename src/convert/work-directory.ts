/**
 * The directory that holds what the conversion of one image needs until it is over: one change set and the layers
 * written so far. It has a random name inside the run's directory (run-directory.ts) and goes with the conversion.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';

export class WorkDirectory {
  readonly path: string;

  /** @throws {ObdError} `Io`, `NoSpace` if nothing can be made in `parent`. */
  constructor(parent: string) {
    this.path = guarded(join(parent, 'x'), () => mkdtempSync(join(parent, 'image-')));
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Idempotent, and never throws: what it cannot remove is no reason to call a conversion failed. */
  remove(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // It goes with the run's directory.
    }
  }
}

/** Runs a system call on a file of the work directory; the directory is what a user can do about it. */
export function guarded<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const system = systemCode(error);
    if (system === undefined) throw error;
    const directory = dirname(path);
    if (isDiskFull(error)) {
      throw new ObdError(
        ErrorCodes.NoSpace,
        `Cannot write to "${directory}": ${messageOf(error)}; name a directory with more room with --work-dir`,
        { path: directory },
        error,
      );
    }
    const found = `Cannot use "${directory}" as work directory: ${messageOf(error)}`;
    throw new ObdError(ErrorCodes.Io, found, { path }, error);
  }
}

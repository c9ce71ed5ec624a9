/**
 * Directory for the conversion of one image: one change set and the layers written so far. It has a random name inside
 * the run's directory (run-directory.ts); the conversion removes it at its end.
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

  /** Idempotent, and never throws: a file that it cannot remove must not fail the conversion. */
  remove(): void {
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // It is removed with the run's directory.
    }
  }
}

/** Runs a system call on a file of the work directory; errors name the directory, which the user can change. */
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

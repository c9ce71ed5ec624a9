/**
 * Keeps a command running when its output is not taken: a reader that went away, a full disk, a lost terminal.
 *
 * What is printed on standard error is only told, so nothing follows from its loss. A result that standard output did
 * not take makes the exit status 1, unless its reader has read enough (EPIPE, as in `obdctl devices | head`).
 */
import { EXIT_FAILED } from './failure.js';

/** Call once, before anything is printed. */
export function surviveLostOutput(program: string): void {
  process.stderr.on('error', () => {});
  let isReported = false;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' || isReported) return;
    isReported = true;
    process.stderr.write(`${program}: Cannot write the result: ${error.message}\n`);
    process.once('exit', () => {
      process.exitCode = EXIT_FAILED;
    });
  });
}

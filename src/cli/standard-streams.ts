/**
 * Keeps a command running when it cannot write its output: a closed pipe, a full disk, a lost terminal.
 *
 * Lost messages on standard error have no effect. A result lost on standard output makes the exit status 1, unless its
 * reader has read enough (EPIPE, as in `obdctl devices | head`).
 */
import { EXIT_FAILED } from './failure.js';

/** Call once, before the first output. */
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

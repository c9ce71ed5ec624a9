/**
 * Runs a program of this host with a list of arguments: no shell, a deadline, output of bounded size, and messages in
 * English, as they end up in ours.
 *
 * What mount(8), du and rm do in one call would take Node a native addon or a walk through every file by names that
 * need not be text; a process costs 2 ms.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

const OUTPUT_BYTES_MAX = 1 << 20;

export interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const start = promisify(execFile);

/** What the program said, whatever its exit status. @throws {ObdError} `Host` if it is not installed, `Io`. */
export async function runProgram(
  program: string,
  args: readonly string[],
  timeoutMs: number,
): Promise<Finished> {
  try {
    const environment = { ...process.env, LC_ALL: 'C' };
    const options = { timeout: timeoutMs, maxBuffer: OUTPUT_BYTES_MAX, env: environment };
    return { status: 0, ...(await start(program, args, options)) };
  } catch (error) {
    const { code, killed, stdout, stderr } = error as {
      code?: unknown;
      killed?: boolean;
      stdout?: string;
      stderr?: string;
    };
    const command = [program, ...args].join(' ');
    if (killed === true) {
      const found = `"${command}" did not end within ${timeoutMs} ms`;
      throw new ObdError(ErrorCodes.Io, found, {}, error);
    }
    if (typeof code === 'number') {
      return { status: code, stdout: stdout ?? '', stderr: (stderr ?? '').trim() };
    }
    const missing = systemCode(error) === 'ENOENT';
    const found = missing
      ? `Cannot run "${program}": it is not installed`
      : `Cannot run "${command}": ${messageOf(error)}`;
    throw new ObdError(missing ? ErrorCodes.Host : ErrorCodes.Io, found, {}, error);
  }
}

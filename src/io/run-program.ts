/**
 * Runs a program of this host with a list of arguments: no shell, a deadline, output of bounded size, and messages in
 * English, because our own messages quote them.
 *
 * Without mount(8), losetup, du and rm, Node would need a native addon, or a walk through every file by names that need
 * not be text; a process costs 2 ms.
 *
 * The deadline holds even if the program hangs in the kernel and no signal reaches it: the program is then left behind.
 */
import { execFile } from 'node:child_process';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';

/** Enough for every loop device, or the whole of an error message. */
const OUTPUT_BYTES_MAX = 4 << 20;

/** The Debian package of each program, for the error if it is missing. */
const PACKAGES = {
  ctr: 'containerd',
  dd: 'coreutils',
  du: 'coreutils',
  ln: 'coreutils',
  losetup: 'mount',
  mount: 'mount',
  od: 'coreutils',
  rm: 'coreutils',
  sh: 'dash',
  umount: 'mount',
} as const;

export type Program = keyof typeof PACKAGES;

export interface Finished {
  readonly status: number;
  readonly stdout: string;
  /** Trimmed. */
  readonly stderr: string;
}

/**
 * Returns the program's output for every exit status.
 * @param onStart - Gets the running process, for inspection.
 * @throws {ObdError} `Host` if it is not installed, `Io` if it takes too long, says too much or is killed.
 */
export function runProgram(
  program: Program,
  args: readonly string[],
  timeoutMs: number,
  onStart?: (pid: number) => void,
): Promise<Finished> {
  const options = { maxBuffer: OUTPUT_BYTES_MAX, env: { ...process.env, LC_ALL: 'C' } };
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, options, (error, stdout, stderr) => {
      clearTimeout(timer);
      const status = error === null ? 0 : error.code;
      if (typeof status === 'number') resolve({ status, stdout, stderr: stderr.trim() });
      else if (systemCode(error) === 'ENOENT') reject(missingProgram(program));
      else reject(failed(program, args, messageOf(error), error));
    });
    if (child.pid !== undefined) onStart?.(child.pid);
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      child.unref();
      reject(failed(program, args, `no end after ${timeoutMs} ms`));
    }, timeoutMs);
  });
}

/** Returns the program's standard output. @throws {ObdError} as runProgram(); `Io` unless its exit status is 0. */
export async function outputOf(
  program: Program,
  args: readonly string[],
  timeoutMs: number,
): Promise<string> {
  const { status, stdout, stderr } = await runProgram(program, args, timeoutMs);
  if (status === 0) return stdout;
  throw failed(program, args, stderr === '' ? `its exit status is ${status}` : stderr);
}

function missingProgram(program: Program): ObdError {
  return new ObdError(
    ErrorCodes.Host,
    `Cannot run ${program}: it is not installed; \`apt-get install ${PACKAGES[program]}\` brings it`,
  );
}

function failed(program: Program, args: readonly string[], state: string, cause?: unknown) {
  const command = [program, ...args].join(' ');
  return new ObdError(ErrorCodes.Io, `Cannot run \`${command}\`: ${state}`, {}, cause);
}

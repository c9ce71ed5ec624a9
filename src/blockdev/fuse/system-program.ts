/**
 * Programs of the host that this transport needs, run to their end within a time limit.
 */
import { execFile } from 'node:child_process';
import { ErrorCodes, ObdError, systemCode } from '../../errors.js';

/** They take milliseconds; this is for a kernel that does not answer. */
const PROGRAM_MS = 10_000;
/** Of what they say: enough for every loop device and an error message. */
const OUTPUT_BYTES_MAX = 4 << 20;

/** Where each comes from, for whoever lacks it. */
const PACKAGES = {
  nbdfuse: 'libnbd-bin',
  losetup: 'mount',
  umount: 'mount',
  dd: 'coreutils',
} as const;

export type Program = keyof typeof PACKAGES;

/**
 * @returns What it wrote to its standard output.
 * @throws {ObdError} `Host` if there is no such program, `Io` with its last words if it fails or takes too long.
 */
export function runProgram(program: Program, args: readonly string[]): Promise<string> {
  const options = {
    timeout: PROGRAM_MS,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_BYTES_MAX,
    env: { ...process.env, LC_ALL: 'C' },
  } as const;
  return new Promise((resolve, reject) => {
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
        return;
      }
      if (systemCode(error) === 'ENOENT') {
        reject(missingProgram(program));
        return;
      }
      const command = [program, ...args].join(' ');
      const state = error.killed ? `no end after ${PROGRAM_MS} ms` : stderr.trim() || error.message;
      reject(new ObdError(ErrorCodes.Io, `Cannot run \`${command}\`: ${state}`, {}, error));
    });
  });
}

export function missingProgram(program: Program): ObdError {
  return new ObdError(
    ErrorCodes.Host,
    `Cannot run ${program}: it is not installed; \`apt-get install ${PACKAGES[program]}\` brings it`,
  );
}

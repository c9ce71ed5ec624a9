/**
 * Runs `docker-credential-NAME get`, a program that keeps logins in a keychain or derives them from a cloud's identity.
 * It reads the registry's name from standard input and prints JSON (docker-credential-helpers).
 *
 * It gets a bounded time. No message quotes its output, which may hold the secret.
 */
import { spawn } from 'node:child_process';
import * as z from 'zod';
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { Login } from './credentials.js';

/** Helpers of clouds ask a metadata service. Keychains may ask a person, which no daemon can answer. */
const HELPER_MS = 15_000;
const OUTPUT_BYTES_MAX = 256 << 10;
/** The output of a helper that works but has no login. */
const NOT_FOUND = 'credentials not found';
/** The user name that marks the secret as a refresh token. */
const TOKEN_USER = '<token>';

const answer = z.looseObject({ Username: z.string(), Secret: z.string() });

/**
 * @param name - As in the config: the program is `docker-credential-` and this.
 * @returns undefined if the helper knows no login for `server`.
 * @throws {ObdError} `InvalidArgument` for an invalid name, `Host` if the program is missing, fails, takes too long or
 *   answers nonsense.
 */
export async function askCredentialHelper(
  name: string,
  server: string,
): Promise<Login | undefined> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) {
    const shown = JSON.stringify(name.slice(0, 80));
    throw new ObdError(
      ErrorCodes.InvalidArgument,
      `${shown} is not the name of a credential helper`,
    );
  }
  const program = `docker-credential-${name}`;
  const { status, output } = await run(program, server);
  if (status !== 0) {
    if (output.toLowerCase().includes(NOT_FOUND)) return undefined;
    throw failed(
      program,
      `it exited with status ${status}; try \`echo ${server} | ${program} get\``,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(output);
  } catch {
    throw failed(program, 'its answer is not JSON');
  }
  const parsed = answer.safeParse(json);
  if (!parsed.success) throw failed(program, 'its answer lacks "Username" or "Secret"');
  const { Username: username, Secret: secret } = parsed.data;
  if (username === TOKEN_USER) return { kind: 'identity-token', token: secret };
  return { kind: 'password', username, password: secret };
}

function run(program: string, server: string): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], { stdio: ['pipe', 'pipe', 'ignore'] });
    const pieces: Buffer[] = [];
    let length = 0;
    const giveUp = (problem: string, cause?: unknown) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      // A grandchild may hold the pipe open: do not wait for the end of its output.
      child.stdout.destroy();
      reject(failed(program, problem, cause));
    };
    const late = `it did not answer within ${HELPER_MS / 1000} s`;
    const timer = setTimeout(() => giveUp(late), HELPER_MS);
    child.on('error', (error) => giveUp(messageOf(error), error));
    // A helper that ends without reading breaks the pipe; its exit status explains that.
    child.stdin.on('error', () => {});
    child.stdin.end(server);
    child.stdout.on('data', (piece: Buffer) => {
      pieces.push(piece);
      length += piece.length;
      if (length > OUTPUT_BYTES_MAX) giveUp(`it wrote more than ${OUTPUT_BYTES_MAX} bytes`);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === null) return reject(failed(program, `it was ended by ${signal}`));
      resolve({ status: code, output: Buffer.concat(pieces).toString('utf8') });
    });
  });
}

function failed(program: string, problem: string, cause?: unknown): ObdError {
  const message = `Cannot get a login from "${program}": ${problem}`;
  return new ObdError(ErrorCodes.Host, message, { path: program }, cause);
}

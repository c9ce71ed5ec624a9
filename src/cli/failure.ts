/**
 * Reports a failed command: one line for people on stderr, and an exit status for scripts.
 *
 *   0  done    1  failed    2  the command line is invalid    129, 130, 143  interrupted (interruption.ts)
 *
 * The line is the ObdError's own message: action, state found, remedy. A stack is printed only where OBD_TS_DEBUG is
 * set, or for a bug, which has no better description. All output goes through withoutSecrets(): user information and
 * queries of URLs (pre-signed ones carry a signature there) and authorization headers never reach a terminal or a log.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { interruptedStatus } from './interruption.js';

export const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** Node's functions wrap the reason of the signal that ended them. */
function reasonOf(error: unknown): unknown {
  const isWrapped = error instanceof Error && error.name === 'AbortError';
  return isWrapped && error.cause instanceof ObdError ? error.cause : error;
}

/** Prints the error and returns the exit status. */
export function reportFailure(program: string, error: unknown): number {
  process.stderr.write(failureText(program, error, process.env['OBD_TS_DEBUG'] !== undefined));
  return interruptedStatus() ?? exitStatusOf(error);
}

export function exitStatusOf(error: unknown): number {
  const usage = error instanceof ObdError && error.code === ErrorCodes.InvalidArgument;
  return usage ? EXIT_USAGE : EXIT_FAILED;
}

export function failureText(program: string, thrown: unknown, debug: boolean): string {
  const error = reasonOf(thrown);
  const known = error instanceof ObdError;
  const text = known
    ? messageOf(error)
    : `Internal error: ${messageOf(error)}; please report it, with what OBD_TS_DEBUG=1 prints`;
  const lines = [`${program}: ${text}`];
  if (debug) lines.push(...chainOf(error));
  return withoutSecrets(`${lines.join('\n')}\n`);
}

/** The stack of the error and of each of its causes; a chain longer than this is a cycle. */
const CAUSES_MAX = 16;

function chainOf(error: unknown): string[] {
  const stacks: string[] = [];
  let at = error;
  while (at instanceof Error && stacks.length < CAUSES_MAX) {
    stacks.push(at.stack ?? at.message);
    at = at.cause;
  }
  return stacks;
}

/** Returns `text` with its credentials blanked. */
export function withoutSecrets(text: string): string {
  return text
    .replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@"']+@/gi, '$1***@')
    .replaceAll(/(\bhttps?:\/\/[^\s?"']+)\?[^\s"']+/gi, '$1?***')
    .replaceAll(/\b(basic|bearer) +[a-z0-9._~+/=-]{8,}/gi, '$1 ***');
}

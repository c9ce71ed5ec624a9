/**
 * The log of a daemon: a line of JSON for each event on standard error, where systemd and scripts expect it.
 *
 * An error is logged as its code, its message, its details and its causes' messages; a stack only for a bug. Each line goes
 * through withoutSecrets().
 */
import { type Logger, pino } from 'pino';
import { messageOf, ObdError } from '../errors.js';
import { withoutSecrets } from './failure.js';

/** A chain longer than this is a cycle. */
const CAUSES_MAX = 8;

export function daemonLog(program: string, level: string): Logger {
  const options = {
    base: { program, pid: process.pid },
    level,
    serializers: { err: errorFields },
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  return pino(options, {
    write: (line: string) => void process.stderr.write(withoutSecrets(line)),
  });
}

function errorFields(error: unknown): object {
  if (!(error instanceof ObdError)) {
    return { message: messageOf(error), stack: error instanceof Error ? error.stack : undefined };
  }
  const causes: string[] = [];
  let at = error.cause;
  for (let depth = 0; at instanceof Error && depth < CAUSES_MAX; depth++) {
    if (!error.message.includes(at.message)) causes.push(at.message);
    at = at.cause;
  }
  const because = causes.length === 0 ? {} : { causes };
  return { code: error.code, message: error.message, ...error.details, ...because };
}

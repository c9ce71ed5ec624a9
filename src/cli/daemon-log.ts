/**
 * The log of a daemon: one line of JSON for each event on standard error, where systemd and scripts expect it.
 *
 * An error is logged as its code, its message, its details and its causes' messages; a stack only for a bug. Each line goes
 * through withoutSecrets(), and through LogOutput, so no state of standard error can end or block the daemon.
 */
import { type Logger, pino } from 'pino';
import { messageOf, ObdError } from '../errors.js';
import { withoutSecrets } from './failure.js';
import { LogOutput } from './log-output.js';

/** A chain longer than this is a cycle. */
const CAUSES_MAX = 8;

/**
 * Logs to standard error and takes it over: output of Node, libraries and worker threads goes through the same
 * LogOutput. An uncaught error is logged, then the process is killed, as its state is unknown; the next run recovers.
 *
 * Create only one such log in a process.
 */
export function daemonLog(program: string, level: string): Logger {
  // Opening the streams makes a pipe or socket non-blocking. Their own errors are ignored.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  const output = new LogOutput(process.stderr.fd, droppedLine);
  const log = jsonLog(program, level, output);
  process.stderr.write = (
    text: string | Uint8Array,
    encoding?: BufferEncoding | ((error?: Error | null) => void),
    callback?: (error?: Error | null) => void,
  ) => {
    output.write(typeof text === 'string' ? text : Buffer.from(text).toString('utf8'));
    const done = typeof encoding === 'function' ? encoding : callback;
    if (done !== undefined) process.nextTick(done);
    return true;
  };
  // Removes Node's own listener, which prints.
  process.removeAllListeners('warning');
  process.on('warning', (err) => log.warn({ err }, 'Node.js warning'));
  process.on('uncaughtException', (err, origin) => {
    log.fatal({ err, origin }, 'uncaught error, exiting so that the next run recovers');
    process.kill(process.pid, 'SIGKILL');
  });
  return log;

  function droppedLine(lines: number): string {
    const fields = { level: 'warn', time: new Date().toISOString(), program, pid: process.pid };
    const msg = 'log lines dropped, standard error took none; check its disk or its reader';
    return `${JSON.stringify({ ...fields, lines, msg })}\n`;
  }
}

/** @param output - Takes each line as one call. */
export function jsonLog(program: string, level: string, output: Pick<LogOutput, 'write'>): Logger {
  const options = {
    base: { program, pid: process.pid },
    level,
    serializers: { err: errorFields },
    formatters: { level: (label: string) => ({ level: label }) },
    timestamp: pino.stdTimeFunctions.isoTime,
  };
  return pino(options, { write: (line: string) => output.write(withoutSecrets(line)) });
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

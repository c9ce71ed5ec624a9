/**
 * Goal: an event is one line of JSON with the facts that lead to the cause, and without secrets.
 * Method: the lines that the log writes to an output.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { jsonLog } from './daemon-log.js';

/** A log and the lines it wrote. */
function caught() {
  const lines: string[] = [];
  const log = jsonLog('obd-test', 'info', { write: (line) => void lines.push(line) });
  return { lines, log };
}

test('a line has time, level, name and message', () => {
  const { lines, log } = caught();
  log.debug('not this');
  log.info({ id: 'a' }, 'attached');
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? '', /\n$/);
  const { time, ...line } = JSON.parse(lines[0] ?? '');
  assert.match(time, /^20\d\d-\d\d-\d\dT/);
  assert.deepEqual(line, {
    level: 'info',
    program: 'obd-test',
    pid: process.pid,
    id: 'a',
    msg: 'attached',
  });
});

test('an error is logged with code, details and causes, and with a stack only if it is a bug', () => {
  const { lines, log } = caught();
  const root = new Error('connect ECONNREFUSED');
  const middle = new ObdError(ErrorCodes.Unavailable, 'Cannot reach h', {}, root);
  const outer = 'Cannot open layer 1: Cannot reach h';
  log.error({ err: new ObdError(ErrorCodes.Unavailable, outer, { offset: 5 }, middle) }, 'x');
  log.error({ err: new TypeError('undefined') }, 'x');
  const cycle = new ObdError(ErrorCodes.Io, 'Cannot');
  cycle.cause = cycle;
  log.error({ err: cycle }, 'x');
  const [known, bug] = lines.map((line) => JSON.parse(line).err);
  const causes = ['connect ECONNREFUSED'];
  assert.deepEqual(known, { code: ErrorCodes.Unavailable, message: outer, offset: 5, causes });
  assert.match(bug.stack, /daemon-log\.test/);
  assert.equal(lines.length, 3);
});

test('secrets are blanked, and the line is still JSON', () => {
  const { lines, log } = caught();
  const message = 'GET https://u:hunter22@h/b?X-Sig=hunter22: sent "Bearer hunter2222222"';
  const error = new ObdError(ErrorCodes.Registry, message, { reference: 'https://h/b?k=hunter22' });
  log.error({ err: error, url: 'https://u:hunter22@h/' }, message);
  assert.ok(!(lines[0] ?? '').includes('hunter2'), lines[0]);
  assert.equal(JSON.parse(lines[0] ?? '').err.code, ErrorCodes.Registry);
});

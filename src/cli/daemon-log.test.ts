/**
 * Goal: an event is one line of JSON with what is needed to find the cause, and without anybody's secrets.
 * Method: what is written to standard error, caught.
 */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { daemonLog } from './daemon-log.js';

function caught(context: TestContext): string[] {
  const lines: string[] = [];
  context.mock.method(process.stderr, 'write', (line: string) => lines.push(line) > 0);
  return lines;
}

test('a line says when, how bad, who, what', (context) => {
  const lines = caught(context);
  const log = daemonLog('obd-test', 'info');
  log.debug('not this');
  log.info({ id: 'a' }, 'attached');
  context.mock.reset();
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

test('an error is its code, details and causes; only a bug has a stack', (context) => {
  const lines = caught(context);
  const log = daemonLog('obd-test', 'info');
  const root = new Error('connect ECONNREFUSED');
  const middle = new ObdError(ErrorCodes.Unavailable, 'Cannot reach h', {}, root);
  const outer = 'Cannot open layer 1: Cannot reach h';
  log.error({ err: new ObdError(ErrorCodes.Unavailable, outer, { offset: 5 }, middle) }, 'x');
  log.error({ err: new TypeError('undefined') }, 'x');
  const cycle = new ObdError(ErrorCodes.Io, 'Cannot');
  cycle.cause = cycle;
  log.error({ err: cycle }, 'x');
  context.mock.reset();
  const [known, bug] = lines.map((line) => JSON.parse(line).err);
  const causes = ['connect ECONNREFUSED'];
  assert.deepEqual(known, { code: ErrorCodes.Unavailable, message: outer, offset: 5, causes });
  assert.match(bug.stack, /daemon-log\.test/);
  assert.equal(lines.length, 3);
});

test('secrets are blanked, and the line still is JSON', (context) => {
  const lines = caught(context);
  const message = 'GET https://u:hunter22@h/b?X-Sig=hunter22: sent "Bearer hunter2222222"';
  const error = new ObdError(ErrorCodes.Registry, message, { reference: 'https://h/b?k=hunter22' });
  daemonLog('obd-test', 'info').error({ err: error, url: 'https://u:hunter22@h/' }, message);
  context.mock.reset();
  assert.ok(!(lines[0] ?? '').includes('hunter2'), lines[0]);
  assert.equal(JSON.parse(lines[0] ?? '').err.code, ErrorCodes.Registry);
});

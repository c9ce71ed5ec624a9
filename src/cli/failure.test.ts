/**
 * Goal: a failure is printed as its own sentence, picks the right exit status, and never shows a secret.
 * Method: errors of each kind, and messages built around generated credentials.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { ErrorCodes, ObdError } from '../errors.js';
import { exitStatusOf, failureText, withoutSecrets } from './failure.js';

const refused = new ObdError(ErrorCodes.Unavailable, 'Cannot reach registry: connection refused');

test('an ObdError is printed as its message only', () => {
  assert.equal(
    failureText('obdctl', refused, false),
    'obdctl: Cannot reach registry: connection refused\n',
  );
});

test('OBD_TS_DEBUG shows the stacks of the error and of its causes', () => {
  const outer = new ObdError(ErrorCodes.Io, 'Cannot pull', {}, refused);
  const text = failureText('obdctl', outer, true);
  assert.match(text, /Cannot pull\n[\s\S]*failure\.test/);
  assert.match(text, /connection refused[\s\S]*failure\.test/);
});

test('a cyclic chain of causes ends', () => {
  const error = new ObdError(ErrorCodes.Io, 'Cannot pull');
  error.cause = error;
  assert.ok(failureText('obdctl', error, true).length < 1 << 16);
});

test('a bug is reported as an internal error', () => {
  assert.match(failureText('obdctl', new TypeError('x is undefined'), false), /Internal error: x/);
});

test('exit status', () => {
  assert.equal(exitStatusOf(refused), 1);
  assert.equal(exitStatusOf(new TypeError('bug')), 1);
  assert.equal(exitStatusOf(new ObdError(ErrorCodes.InvalidArgument, 'Cannot parse "::"')), 2);
});

test('withoutSecrets() leaves no password, token or signature', () => {
  const secret = fc.stringMatching(/^[a-zA-Z0-9._~-]{8,40}$/).map((text) => `S3${text}`);
  fc.assert(
    fc.property(secret, (text) => {
      for (const around of [
        `GET https://user:${text}@host/v2/: 401`,
        `GET https://host/blob?X-Amz-Signature=${text}&expires=1: 403`,
        `sent "authorization: Bearer ${text}"`,
        `sent 'Authorization: Basic ${text}=='`,
      ]) {
        assert.ok(!withoutSecrets(around).includes(text), withoutSecrets(around));
      }
    }),
  );
});

test('withoutSecrets() leaves ordinary text alone', () => {
  const text = 'Cannot read /var/lib/x@y/z?: localhost:5000/app:1@sha256:00 is not basic';
  assert.equal(withoutSecrets(text), text);
});

test('an interrupt that Node has wrapped is the interrupt', async () => {
  const interrupt = new ObdError(ErrorCodes.FailedPrecondition, 'Interrupted by SIGINT');
  const error = await sleep(1_000, undefined, { signal: AbortSignal.abort(interrupt) }).catch(
    (thrown: unknown) => thrown,
  );
  assert.equal(failureText('obdctl', error, false), 'obdctl: Interrupted by SIGINT\n');
});

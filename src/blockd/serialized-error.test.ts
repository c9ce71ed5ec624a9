/**
 * Goal: an error says on another thread what it said on its own, and the log finds its causes.
 * Method: structuredClone(), which is what a port does.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes, ObdError } from '../errors.js';
import { deserializedError, serializedError } from './serialized-error.js';

test('an error arrives with code, message, details and causes; a bug with its stack', () => {
  const root = Object.assign(new TypeError('ECONNREFUSED'), { code: 'ECONNREFUSED' });
  const cause = new ObdError(ErrorCodes.Unavailable, 'Cannot connect', {}, root);
  const details = { digest: 'sha256:a', offset: 5, length: 6 };
  const error = new ObdError(ErrorCodes.Io, 'Cannot read', details, cause);
  const arrived = deserializedError(structuredClone(serializedError(error)));
  assert.ok(arrived instanceof ObdError);
  assert.deepEqual(
    [arrived.code, arrived.message, arrived.details],
    [ErrorCodes.Io, 'Cannot read', details],
  );
  const first = arrived.cause as Error;
  assert.deepEqual([first.message, (first.cause as Error).message], [cause.message, root.message]);
  const bug = deserializedError(structuredClone(serializedError(root)));
  assert.deepEqual([bug.message, bug.stack], [root.message, root.stack]);
  assert.equal(deserializedError(serializedError('text')).message, 'text');
});

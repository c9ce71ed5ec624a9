/**
 * Goal: each of our codes has the gRPC status that containerd expects, a client of ours gets the same error back, and a
 * foreign status becomes the code that our callers branch on.
 * Method: a row per code, forth and back; statuses as foreign peers send them.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { type ErrorCode, ErrorCodes, ObdError } from '../errors.js';
import { errorOf, statusOf } from './status.js';

function received({ code, details, metadata }: StatusObject): ServiceError {
  return Object.assign(new TypeError(details), { code, details, metadata });
}

const CODES: Record<ErrorCode, keyof typeof status> = {
  ERR_CORRUPT: 'DATA_LOSS',
  ERR_UNSUPPORTED: 'UNIMPLEMENTED',
  ERR_INVALID_ARGUMENT: 'INVALID_ARGUMENT',
  ERR_NOT_FOUND: 'NOT_FOUND',
  ERR_ALREADY_EXISTS: 'ALREADY_EXISTS',
  ERR_FAILED_PRECONDITION: 'FAILED_PRECONDITION',
  ERR_BUSY: 'FAILED_PRECONDITION',
  ERR_UNAUTHORIZED: 'UNAUTHENTICATED',
  ERR_REGISTRY_RESPONSE: 'UNKNOWN',
  ERR_UNAVAILABLE: 'UNAVAILABLE',
  ERR_NO_SPACE: 'RESOURCE_EXHAUSTED',
  ERR_HOST: 'FAILED_PRECONDITION',
  ERR_IO: 'INTERNAL',
};

describe('our errors', () => {
  const details = { path: '/ä', digest: 'sha256:0', offset: 2 ** 40, status: 503, retryAfterMs: 7 };
  for (const [code, name] of Object.entries(CODES) as [ErrorCode, keyof typeof status][]) {
    test(`${code} is ${name}, and becomes the same error again`, () => {
      const sent = statusOf(new ObdError(code, 'Cannot open "ä": why', details));
      assert.equal(sent.code, status[name]);
      const error = errorOf(received(sent), 'blockd (Blockd/Attach)');
      assert.equal(error.code, code);
      assert.equal(error.message, 'Cannot open "ä": why');
      assert.deepEqual(error.details, details);
    });
  }

  test('a bug is INTERNAL, and an Io error that names the peer in a client', () => {
    const sent = statusOf(new TypeError('x is not a function'));
    assert.equal(sent.code, status.INTERNAL);
    assert.match(sent.details, /^Internal error: x is not a function; /);
    assert.equal(errorOf(received(sent), 'peer').code, ErrorCodes.Io);
  });

  test('long messages and details are cut to the size of headers', () => {
    const long = `${'x'.repeat(100_000)}\ud800`;
    const sent = statusOf(new ObdError(ErrorCodes.Io, long, { path: long }));
    assert.ok(sent.details.length < 2100);
    assert.deepEqual(errorOf(received(sent), 'peer').details, {});
    assert.equal(statusOf(new ObdError(ErrorCodes.Io, '\ud800')).details, '\ufffd');
  });
});

describe('foreign statuses', () => {
  for (const [name, code] of [
    ['ALREADY_EXISTS', ErrorCodes.AlreadyExists],
    ['NOT_FOUND', ErrorCodes.NotFound],
    ['FAILED_PRECONDITION', ErrorCodes.FailedPrecondition],
    ['INVALID_ARGUMENT', ErrorCodes.InvalidArgument],
    ['DEADLINE_EXCEEDED', ErrorCodes.Unavailable],
    ['UNIMPLEMENTED', ErrorCodes.Unsupported],
    ['UNKNOWN', ErrorCodes.Io],
  ] as const) {
    test(`${name} is ${code}`, () => {
      const foreign = { code: status[name], details: 'why', metadata: new Metadata() };
      const error = errorOf(received(foreign), 'containerd (Snapshots/Stat)');
      assert.equal(error.code, code);
      assert.equal(error.message, 'Cannot call containerd (Snapshots/Stat): why');
    });
  }

  test('malformed trailers under our names are ignored', () => {
    const metadata = new Metadata();
    metadata.set('obd-error-code', 'toString');
    metadata.set('obd-error-details-bin', Buffer.from('{"path":1}'));
    const error = errorOf(received({ code: status.NOT_FOUND, details: '', metadata }), 'peer');
    assert.equal(error.code, ErrorCodes.NotFound);
    assert.equal(error.message, 'Cannot call peer: NOT_FOUND');
    metadata.set('obd-error-code', ErrorCodes.Busy);
    const ours = errorOf(received({ code: status.NOT_FOUND, details: 'm', metadata }), 'peer');
    assert.equal(ours.code, ErrorCodes.Busy);
    assert.deepEqual(ours.details, {});
  });
});

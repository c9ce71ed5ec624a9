/** Goal: a disk gets the first transport that works here and can do what the disk needs; otherwise every reason is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TransportDouble } from '../../test/support/transport-double.js';
import {
  READ_ONLY,
  type TransportCapabilities,
  type TransportName,
} from '../blockdev/transport.js';
import { ErrorCodes } from '../errors.js';
import { TransportChoice } from './transport-choice.js';

function transportOf(name: TransportName, capabilities: Partial<TransportCapabilities>) {
  return Object.assign(new TransportDouble(name), {
    capabilities: { ...READ_ONLY, ...capabilities },
  });
}

const transports = {
  ublk: transportOf('ublk', { write: true }),
  tcmu: transportOf('tcmu', {}),
  nbd: transportOf('nbd', { write: true, discard: true }),
  fuse: transportOf('fuse', {}),
};

test('candidates() gives an image every transport, best first', async () => {
  const choice = new TransportChoice('auto', transports);
  assert.deepEqual(await choice.candidates(READ_ONLY), ['ublk', 'tcmu', 'nbd', 'fuse']);
});

test('candidates() leaves out transports that cannot do what the disk needs', async () => {
  const choice = new TransportChoice('auto', transports);
  assert.deepEqual(await choice.candidates({ ...READ_ONLY, write: true }), ['ublk', 'nbd']);
  const needs = { write: true, discard: true, resize: false };
  assert.deepEqual(await choice.candidates(needs), ['nbd']);
});

test('candidates() names the needs that no allowed transport meets', async () => {
  const choice = new TransportChoice('fuse', transports);
  const needs = { write: true, discard: true, resize: false };
  await assert.rejects(choice.candidates(needs), {
    code: ErrorCodes.Host,
    message: /fuse cannot be used: its devices have no write, no discard$/,
  });
});

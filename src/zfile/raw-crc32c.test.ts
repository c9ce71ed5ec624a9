/** Goal: the checksum is the one in the files. Method: the published check values. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawCrc32c } from './raw-crc32c.js';

const DIGITS = Buffer.from('123456789');

test('rawCrc32c() gives the published values', () => {
  assert.equal(rawCrc32c(DIGITS, 0), 0x58e3fa20);
  assert.equal(rawCrc32c(DIGITS, 100007), 0x3c9bd4e0);
  assert.equal(~rawCrc32c(DIGITS, 0xffffffff) >>> 0, 0xe3069283);
});

test('rawCrc32c() of nothing is the seed, and continues where it stopped', () => {
  assert.equal(rawCrc32c(new Uint8Array(), 7), 7);
  assert.equal(rawCrc32c(new Uint8Array(64), 0), 0);
  const half = rawCrc32c(DIGITS.subarray(0, 4), 0);
  assert.equal(rawCrc32c(DIGITS.subarray(4), half), 0x58e3fa20);
});

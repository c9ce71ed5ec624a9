/** Goal: a platform that a user names finds its manifest, and no other. Method: each rule by example. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { formatPlatform, hostPlatform, matchesPlatform, parsePlatform } from './platform.js';

test('reads and writes os/architecture/variant', () => {
  for (const text of ['linux/amd64', 'linux/arm/v7', 'windows/amd64']) {
    assert.equal(formatPlatform(parsePlatform(text)), text);
  }
  for (const text of ['', 'linux', 'linux/', 'Linux/amd64', 'linux/arm/v7/x', 'linux amd64']) {
    assert.throws(() => parsePlatform(text), { code: ErrorCodes.InvalidArgument }, text);
  }
  assert.equal(hostPlatform().os, 'linux');
});

test('a variant that one side leaves out matches any', () => {
  const match = (a: string, b: string) => matchesPlatform(parsePlatform(a), parsePlatform(b));
  assert.ok(match('linux/arm64', 'linux/arm64/v8'));
  assert.ok(match('linux/arm64/v8', 'linux/arm64'));
  assert.ok(!match('linux/arm/v6', 'linux/arm/v7'));
  assert.ok(!match('linux/arm64', 'linux/amd64'));
  assert.ok(!match('linux/amd64', 'windows/amd64'));
});

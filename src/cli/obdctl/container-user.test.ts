/**
 * Goal: a container runs as the user that container engines would choose.
 * Method: the forms of `User` in the OCI image spec, with the users and groups of a small image.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../../errors.js';
import { checkUser, containerUser } from './container-user.js';

const PASSWD = 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n';
const GROUP = 'root:x:0:\nstaff:x:50:other,app\nhuge:x:99999999999:app\n';

describe('containerUser()', () => {
  for (const [text, uid, gid, additionalGids] of [
    ['', 0, 0, []],
    ['app', 1000, 1001, [50]],
    ['1000', 1000, 1001, [50]],
    ['4711', 4711, 0, []],
    ['app:staff', 1000, 50, []],
    ['7:8', 7, 8, []],
    ['app:', 1000, 1001, [50]],
  ] as const) {
    test(`takes "${text}"`, () => {
      assert.deepEqual(containerUser(text, PASSWD, GROUP), { uid, gid, additionalGids });
    });
  }

  for (const text of ['nobody', 'app:nogroup', '99999999999', 'app:huge']) {
    test(`refuses "${text}"`, () => {
      assert.throws(() => containerUser(text, PASSWD, GROUP), { code: ErrorCodes.NotFound });
    });
  }

  test('needs no files for numbers', () => {
    assert.deepEqual(containerUser('5', '', ''), { uid: 5, gid: 0, additionalGids: [] });
  });
});

describe('checkUser()', () => {
  for (const text of ['app', '1000', 'app:staff', '7:8', 'app:', '2147483647']) {
    test(`takes "${text}"`, () => checkUser(text));
  }

  for (const [text, message] of [
    ['1:2:3', /--user 1:2:3: it is no user; write USER or USER:GROUP/],
    [':5', /it is no user/],
    ['4294967296', /4294967296 is more than 2147483647/],
    ['app:99999999999', /99999999999 is more than/],
  ] as const) {
    test(`refuses "${text}"`, () => {
      assert.throws(() => checkUser(text), { code: ErrorCodes.InvalidArgument, message });
    });
  }
});

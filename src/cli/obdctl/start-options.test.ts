/**
 * Goal: the options of a start are checked before anything is pulled, and errors name the value and the remedy.
 * Method: options as the command line gives them, and a small environment.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ErrorCodes } from '../../errors.js';
import { startOf } from './start-options.js';

const NONE = { entrypoint: undefined, args: undefined, env: [], cwd: undefined };
const HOST = { COLOR: 'blue', EMPTY: '' };

describe('startOf()', () => {
  test('parses words, and takes a variable without value from the environment', () => {
    const given = { entrypoint: '["app", "-v"]', args: 'worker', cwd: '/srv' };
    const env = ['A=1', 'B=', 'C=d=e', 'COLOR', 'EMPTY'];
    assert.deepEqual(startOf({ ...given, env }, HOST), {
      ...{ entrypoint: ['app', '-v'], args: ['worker'], cwd: '/srv' },
      env: ['A=1', 'B=', 'C=d=e', 'COLOR=blue', 'EMPTY='],
    });
    assert.deepEqual(startOf(NONE, HOST), NONE);
  });

  for (const [why, given, message] of [
    ['a variable that is not set', { env: ['FOO'] }, /--env FOO: this shell has no such variable/],
    ['a variable without name', { env: ['=1'] }, /--env =1: write it as NAME=VALUE/],
    ['an empty variable', { env: [''] }, /write it as NAME=VALUE/],
    ['a relative directory', { cwd: 'srv' }, /--cwd srv: .*; write --cwd \/srv/],
  ] as const) {
    test(`refuses ${why}`, () => {
      const refusal = { code: ErrorCodes.InvalidArgument, message };
      assert.throws(() => startOf({ ...NONE, ...given }, HOST), refusal);
    });
  }
});

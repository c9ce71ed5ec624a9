/**
 * Goal: a program starts faster by the compile cache of its build, and leaves no file in the build of another user, who could
 * not remove it.
 * Method: copies of the build, with an empty cache; one belongs to another user, which takes root.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { programArguments } from '../support/program.js';

const skip = process.getuid?.() === 0 ? false : 'needs root to give files away';
const NOBODY = 65_534;

describe('the compile cache', { skip }, () => {
  let build: string;
  let cache: string;

  before(() => {
    build = mkdtempSync('/var/tmp/obdc.');
    cache = join(build, 'compile-cache');
    const [program = ''] = programArguments('obdctl');
    cpSync(join(realpathSync(program), '..'), build, { recursive: true });
    rmSync(cache, { recursive: true });
    mkdirSync(cache);
  });
  after(() => rmSync(build, { recursive: true }));

  const start = () => execFileSync(process.execPath, [join(build, 'obdctl.js'), '--help']);

  test('of another user stays as it is', () => {
    lchownSync(cache, NOBODY, NOBODY);
    start();
    assert.deepEqual(readdirSync(cache), []);
  });

  test('of the same user is used', () => {
    lchownSync(cache, 0, 0);
    start();
    assert.notDeepEqual(readdirSync(cache), []);
  });
});

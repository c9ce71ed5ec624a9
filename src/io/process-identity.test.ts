/**
 * Goal: a process that runs is never taken for one that has ended.
 * Method: this process, a child that has ended, and identities of other boots, namespaces and forms.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { ownerState, ownIdentity } from './process-identity.js';

test('ownerState() tells running, ended and unknown owners apart', () => {
  const own = ownIdentity();
  assert.equal(ownerState(own), 'running');
  const [pid, started, boot, namespace] = own.split(' ');
  const ended = execFileSync('sh', ['-c', 'echo $$'], { encoding: 'utf8' }).trim();
  assert.equal(ownerState(`${ended} 1 ${boot} ${namespace}`), 'ended');
  assert.equal(ownerState(`${pid} ${Number(started) + 1} ${boot} ${namespace}`), 'ended');
  assert.equal(ownerState(`${pid} ${started} other-boot ${namespace}`), 'other-boot');
  assert.equal(ownerState(`${pid} ${started} ${boot} pid:[1]`), 'unknown');
  for (const text of ['', 'nonsense', `${pid} ${started}`]) {
    assert.equal(ownerState(text), 'unknown');
  }
});

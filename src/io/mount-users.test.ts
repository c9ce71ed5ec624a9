/**
 * Goal: reads of a device are ended only if no live process needs them.
 * Method: a real ext4 on a loop device, processes below it, and other mount namespaces.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isMountedElsewhere, usersBelow } from './mount-users.js';

const skip = process.getuid?.() !== 0 && 'only root can mount';

/** Runs until the test ends; resolves when it has begun. */
async function running(context: TestContext, program: string, args: string[]): Promise<void> {
  const child: ChildProcess = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  context.after(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await once(child.stdout!, 'data');
}

const WAIT = 'echo; exec sleep 60';

test('usersBelow() names 8 of 9 live processes and knows that they live', async (context) => {
  const directory = mkdtempSync('/var/tmp/obd-users-');
  context.after(() => rmSync(directory, { recursive: true }));
  assert.deepEqual(await usersBelow(directory), { users: [], areKilled: false });
  for (let i = 0; i < 9; i++) {
    await running(context, 'sh', ['-c', `cd ${directory}; ${WAIT}`]);
  }
  const { users, areKilled } = await usersBelow(directory);
  assert.equal(users.length, 8);
  assert.equal(areKilled, false);
});

test('isMountedElsewhere() finds a bind mount and a private copy', { skip }, async (context) => {
  const directory = mkdtempSync('/var/tmp/obd-users-');
  const image = join(directory, 'image');
  const target = join(directory, 'a');
  const other = join(directory, 'b');
  for (const each of [target, other]) mkdirSync(each);
  execFileSync('mkfs.ext4', ['-q', '-F', image, '1M'], { stdio: 'ignore' });
  const losetup = ['--find', '--show', '--read-only', image];
  const device = execFileSync('losetup', losetup, { encoding: 'utf8' }).trim();
  context.after(() => {
    spawnSync('umount', [target]);
    execFileSync('losetup', ['--detach', device]);
    rmSync(directory, { recursive: true });
  });
  execFileSync('mount', ['-o', 'ro,noload', device, target]);
  assert.equal(await isMountedElsewhere(device, target), false);
  execFileSync('mount', ['--bind', target, other]);
  const isFound = await isMountedElsewhere(device, target);
  execFileSync('umount', [other]);
  assert.equal(isFound, true);
  assert.equal(await isMountedElsewhere(device, target), false);
  const namespace = ['--mount', '--propagation', 'private', 'sh', '-c', WAIT];
  const child = spawn('unshare', namespace, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  await once(child.stdout, 'data');
  const isCopyFound = await isMountedElsewhere(device, target);
  child.kill('SIGKILL');
  await ended;
  assert.equal(isCopyFound, true);
});

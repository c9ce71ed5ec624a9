/**
 * Goal: one process at a time holds the lock, and a dead one does not block others.
 * Method: locks of processes that live, are gone, or were never there.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { cacheDirectory, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { ErrorCodes } from '../errors.js';
import { DirectoryLock } from './directory-lock.js';

after(removeCacheDirectories);

test('a held lock is busy, by name of the process; a released one is free', () => {
  const directory = cacheDirectory();
  const lock = DirectoryLock.acquire(directory);
  assert.throws(() => DirectoryLock.acquire(directory), {
    code: ErrorCodes.Busy,
    message: `Cannot use the cache "${directory}": process ${process.pid} uses it; stop that, or give this one another directory`,
  });
  assert.equal(statSync(join(directory, 'lock')).mode & 0o777, 0o600);
  lock.release();
  DirectoryLock.acquire(directory).release();
  assert.equal(readFileSync(join(directory, 'lock'), 'latin1'), '');
});

test('the lock of a process that is gone is taken over', async () => {
  const directory = cacheDirectory();
  const child = spawn('true');
  await once(child, 'exit');
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  writeFileSync(join(directory, 'lock'), `${child.pid} 12345 ${boot}\n`);
  DirectoryLock.acquire(directory).release();
});

test('a process that has ended and has not been waited for holds no lock', async (t) => {
  const directory = cacheDirectory();
  // The inner process has a parent that never waits for it.
  const parent = spawn('sh', ['-c', 'true & exec sleep 60'], { stdio: 'ignore' });
  t.after(() => parent.kill());
  await once(parent, 'spawn');
  let pid = '';
  let fields: string[] = [];
  while (fields[0] !== 'Z') {
    await sleep(10);
    pid = readFileSync(`/proc/${parent.pid}/task/${parent.pid}/children`, 'latin1').trim();
    if (pid === '') continue;
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  }
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  writeFileSync(join(directory, 'lock'), `${pid} ${fields[19]} ${boot}\n`);
  DirectoryLock.acquire(directory).release();
});

test('a running daemon of an earlier version, which has no flock, is busy', async () => {
  const directory = cacheDirectory();
  const child = spawn('sleep', ['60']);
  await once(child, 'spawn');
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'latin1');
  const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  writeFileSync(join(directory, 'lock'), `${child.pid} ${started} ${boot}\n`);
  assert.throws(() => DirectoryLock.acquire(directory), {
    code: ErrorCodes.Busy,
    message: new RegExp(`process ${child.pid} uses it`),
  });
  child.kill();
  await once(child, 'exit');
  DirectoryLock.acquire(directory).release();
});

test('a process that is killed releases its lock', async () => {
  const directory = cacheDirectory();
  const script = `
    import { DirectoryLock } from ${JSON.stringify(import.meta.resolve('./directory-lock.js'))};
    DirectoryLock.acquire(${JSON.stringify(directory)});
    console.log('locked');
    setInterval(() => {}, 1000);`;
  const flags = process.execArgv.filter((flag) => flag.startsWith('--import') || flag === 'tsx');
  const child = spawn(process.execPath, [...flags, '--input-type=module', '--eval', script]);
  await once(child.stdout, 'data');
  assert.throws(() => DirectoryLock.acquire(directory), { code: ErrorCodes.Busy });
  child.kill('SIGKILL');
  await once(child, 'exit');
  DirectoryLock.acquire(directory).release();
});

test('a pid used again, or seen before a reboot, is another process', () => {
  const directory = cacheDirectory();
  const held = DirectoryLock.acquire(directory);
  const line = readFileSync(join(directory, 'lock'), 'latin1');
  held.release();
  for (const other of [
    line.replace(/ [0-9]+ /, ' 1 '),
    line.replace(/\S+\n/, 'another-boot\n'),
    '',
    'noise',
    '\0'.repeat(100),
  ]) {
    writeFileSync(join(directory, 'lock'), other);
    DirectoryLock.acquire(directory).release();
  }
});

test('acquireSoon() waits for a process that is ending, and for no other', async () => {
  const directory = cacheDirectory();
  const held = DirectoryLock.acquire(directory);
  await assert.rejects(DirectoryLock.acquireSoon(directory), { code: ErrorCodes.Busy });
  const taken = DirectoryLock.acquireSoon(directory);
  held.release();
  (await taken).release();
});

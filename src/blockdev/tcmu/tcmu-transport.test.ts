/**
 * Goal: TcmuTransport is a transport as the suite has it; missing kernel features are reported; a disk that lost its
 * server waits and continues without an error; a crash at any point of an attach is cleared, and never waited for;
 * objects of other daemons and programs stay untouched.
 * Method: real disks, each test with a separate directory. The server to be killed is a child process.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, realpath, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type TransportUnderTest, transportSuite } from '../../../test/support/transport-suite.js';
import { MemoryDisk, pagesOf } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import type { DeviceFailure } from '../transport.js';
import { makeCoreDevice, removeLink, targetNames } from './target-objects.js';
import { TcmuTransport } from './tcmu-transport.js';

const run = promisify(execFile);
const CORE = '/sys/kernel/config/target/core';
const LOOPBACK = '/sys/kernel/config/target/loopback';
const hasModules =
  existsSync(CORE) && ['target_core_user', 'tcm_loop'].every((m) => existsSync(`/sys/module/${m}`));
const skip =
  process.getuid?.() !== 0
    ? 'it takes root'
    : !hasModules
      ? 'this kernel has no target_core_user, or has not loaded it'
      : undefined;
const SERVER_PROCESS = join(
  import.meta.dirname,
  `../../../test/support/tcmu-server-process${import.meta.filename.endsWith('.ts') ? '.ts' : '.js'}`,
);

interface Scene extends TransportUnderTest {
  readonly transport: TcmuTransport;
  readonly directory: string;
  readonly failures: DeviceFailure[];
}

async function start(t: TestContext): Promise<Scene> {
  const folder = await mkdtemp('/var/tmp/obd-tcmu-');
  t.after(() => rm(folder, { recursive: true }));
  const directory = join(folder, 'devices');
  const failures: DeviceFailure[] = [];
  const transport = new TcmuTransport(directory, {
    onReadError: (failure) => failures.push(failure),
  });
  const again = () => new TcmuTransport(directory);
  return { transport, again, folder, directory, failures, leftovers: () => leftoversOf(directory) };
}

/** Objects in the kernel's target that it does not have by default, and files. */
async function leftoversOf(directory: string): Promise<string[]> {
  const core = (await readdir(CORE)).filter((name) => name !== 'alua');
  const loops = (await readdir(LOOPBACK).catch(() => [])).filter((name) => name.includes('.'));
  const uio = await readdir('/sys/class/uio');
  return [...core, ...loops, ...uio, ...(await readdir(directory).catch(() => []))];
}

async function instanceOf(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  const hash = createHash('sha256').update(await realpath(directory));
  return hash.digest('hex').slice(0, 16);
}

/** Starts a server and waits for its output. */
async function serveElsewhere(
  t: TestContext,
  ...args: [directory: string, id: string, action: 'silent' | 'unanswered']
): Promise<{ server: ChildProcess; said: string }> {
  const server = spawn(process.execPath, [...process.execArgv, SERVER_PROCESS, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => server.kill('SIGKILL'));
  const [said] = (await once(createInterface(server.stdout), 'line')) as [string];
  return { server, said };
}

async function kill(server: ChildProcess): Promise<void> {
  server.kill('SIGKILL');
  await once(server, 'exit');
}

transportSuite('tcmu', skip, start);

test('without the modules, it says how to load them', {
  skip: hasModules && 'this kernel has them',
}, async (t) => {
  const { transport } = await start(t);
  assert.match((await transport.unavailableReason()) ?? '', /scripts\/setup-tcmu\.sh/);
  const attach = transport.attach('none', new MemoryDisk(pagesOf(4096)));
  await assert.rejects(attach, { code: ErrorCodes.Host, message: /scripts\/setup-tcmu\.sh/ });
});

test('a disk without bytes is refused before anything is touched', { skip }, async (t) => {
  const { transport, leftovers } = await start(t);
  const disk = new MemoryDisk(Buffer.alloc(0));
  await assert.rejects(transport.attach('empty', disk), { code: ErrorCodes.InvalidArgument });
  assert.deepEqual(await leftovers(), []);
});

test('a server killed during the scan leaves an orphan that is cleared at once', {
  skip,
}, async (t) => {
  const { transport, directory, leftovers } = await start(t);
  const { server, said } = await serveElsewhere(t, directory, 'scan', 'unanswered');
  assert.equal(said, 'about to');
  await sleep(1500);
  await kill(server);
  assert.deepEqual(await transport.orphans(), [{ id: 'scan', path: undefined }]);
  const resume = transport.resume('scan', new MemoryDisk(Buffer.alloc(1 << 20)));
  await assert.rejects(resume, { code: ErrorCodes.NotFound });
  const begun = performance.now();
  await transport.clear('scan');
  assert.ok(performance.now() - begun < 10_000);
  assert.deepEqual(await leftovers(), []);
});

test('a server killed during the search for partitions leaves a disk that can be cleared', {
  skip,
}, async (t) => {
  const { transport, directory, leftovers } = await start(t);
  const { server, said } = await serveElsewhere(t, directory, 'silent', 'silent');
  await kill(server);
  assert.deepEqual(await transport.orphans(), [{ id: 'silent', path: said }]);
  await transport.clear('silent');
  assert.deepEqual(await leftovers(), []);
});

test('a server killed before there is a disk leaves an orphan without a path', {
  skip,
}, async (t) => {
  const { transport, directory, leftovers } = await start(t);
  const names = targetNames(await instanceOf(directory), 'early');
  await makeCoreDevice(names);
  assert.deepEqual(await transport.orphans(), [{ id: 'early', path: undefined }]);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  await assert.rejects(transport.attach('early', disk), { code: ErrorCodes.Busy });
  await transport.clear('early');
  assert.deepEqual(await leftovers(), []);
  await (await transport.attach('early', disk)).detach();
});

test('a server killed before there is anything of a device leaves nothing', { skip }, async (t) => {
  const { transport, directory } = await start(t);
  const { hba } = targetNames(await instanceOf(directory), '');
  await mkdir(hba);
  assert.deepEqual(await transport.orphans(), []);
  assert.equal(existsSync(hba), false);
});

test('objects of other daemons and programs stay untouched', { skip }, async (t) => {
  const one = await start(t);
  const other = await start(t);
  const foreign = join(CORE, 'user_0');
  await mkdir(foreign);
  await mkdir(join(foreign, 'obd-x'));
  const disk = new MemoryDisk(pagesOf(1 << 20));
  const device = await one.transport.attach('same', disk);
  assert.deepEqual(await other.transport.orphans(), []);
  await other.transport.clear('same');
  await assert.rejects(other.transport.resume('same', disk), { code: ErrorCodes.NotFound });
  const second = await other.transport.attach('same', disk);
  assert.notEqual(second.path, device.path);
  await second.detach();
  const { stdout } = await run('sha256sum', [device.path]);
  assert.equal(stdout.slice(0, 64), createHash('sha256').update(disk.bytes).digest('hex'));
  await device.detach();
  assert.deepEqual(await one.leftovers(), ['user_0']);
  await rmdir(join(foreign, 'obd-x'));
  await rmdir(foreign);
});

test('a disk that another program removed can be detached', { skip }, async (t) => {
  const { transport, directory, leftovers } = await start(t);
  const device = await transport.attach('pulled', new MemoryDisk(pagesOf(1 << 20)));
  await removeLink(targetNames(await instanceOf(directory), 'pulled'));
  await device.detach();
  assert.equal(device.isGone, true);
  assert.deepEqual(await leftovers(), []);
});

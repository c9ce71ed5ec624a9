/**
 * Goal: FuseTransport is a transport as the suite has it; it leaves nothing whatever fails; and what a
 * daemon that was killed left is found and taken away, except what is in use.
 * Method: real devices in a directory of the test's own. The daemon to be killed is a child process.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { type TransportUnderTest, transportSuite } from '../../../test/support/transport-suite.js';
import { MemoryDisk, pagesOf } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { readMountTable } from '../../io/mount-table.js';
import { NbdServer } from '../nbd/nbd-server.js';
import { clearFuseDebris } from './fuse-debris.js';
import { FuseTransport } from './fuse-transport.js';
import { listLoops } from './loop-device.js';

const run = promisify(execFile);
const skip =
  process.getuid?.() !== 0
    ? 'it takes root'
    : !existsSync('/dev/fuse') || !existsSync('/dev/loop-control')
      ? 'this host has no FUSE or no loop devices'
      : spawnSync('nbdfuse', ['--version']).error !== undefined
        ? 'nbdfuse is not installed'
        : undefined;

/** Not below /tmp, whose files may be in memory: loop devices need not work on those. */
async function folderFor(t: TestContext): Promise<string> {
  const folder = await mkdtemp('/var/tmp/obd-fuse-');
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function start(t: TestContext): Promise<TransportUnderTest & { server: NbdServer }> {
  const folder = await folderFor(t);
  const socketPath = join(folder, 'nbd.sock');
  const directory = join(folder, 'devices');
  const server = await NbdServer.listen(socketPath);
  t.after(() => server.close());
  const transport = new FuseTransport(server, socketPath, directory);
  return { transport, server, folder, leftovers: () => leftoversIn(directory) };
}

async function leftoversIn(directory: string): Promise<string[]> {
  const loops = (await listLoops()).map(({ backingFile }) => backingFile);
  const mounts = (await readMountTable()).map(({ target }) => target);
  const commands = await run('ps', ['-eo', 'args']);
  const processes = commands.stdout.split('\n').filter((line) => line.startsWith('nbdfuse'));
  const files = await readdir(directory).catch(() => []);
  const ours = [...loops, ...mounts, ...processes].filter((each) => each.includes(`${directory}/`));
  return [...ours, ...files];
}

transportSuite('fuse', skip, start);

test('an export that is there is used, and outlives the device', { skip }, async (t) => {
  const { transport, server } = await start(t);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  server.addExport('shared', disk);
  const device = await transport.attach('shared', disk);
  await device.detach();
  assert.equal(server.serves('shared', disk), true);
});

test('without its programs, attach() says which package brings them', { skip }, async (t) => {
  const { transport, leftovers, folder } = await start(t);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  const path = process.env['PATH'];
  t.after(() => {
    process.env['PATH'] = path;
  });
  process.env['PATH'] = folder;
  await assert.rejects(transport.attach('none', disk), {
    code: ErrorCodes.Host,
    message: /libnbd-bin/,
  });
  process.env['PATH'] = path;
  assert.deepEqual(await leftovers(), []);
});

test('a device whose nbdfuse was killed can be detached', { skip }, async (t) => {
  const { transport, leftovers } = await start(t);
  const device = await transport.attach('killed', new MemoryDisk(pagesOf(1 << 20)));
  const { stdout } = await run('ps', ['-eo', 'pid,args']);
  const line = stdout.split('\n').find((each) => each.includes('killed/mount/disk'));
  process.kill(Number.parseInt(line ?? '', 10), 'SIGKILL');
  await device.detach();
  assert.deepEqual(await leftovers(), []);
});

test('what a failed attach could not take back is in the way of no other', { skip }, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  const path = process.env['PATH'];
  const programs = join(folder, 'bin');
  await mkdir(programs);
  // Fails, and leaves the device open, as a scan by udev that waits for the disk does.
  const script =
    '#!/bin/sh\nexec 3<"$(echo "$1" | cut -c4-)"\nsleep 60 >/dev/null 2>&1 &\necho $! >"$0.pid"\nexit 1\n';
  await writeFile(join(programs, 'dd'), script, { mode: 0o755 });
  process.env['PATH'] = `${programs}:${path}`;
  try {
    await assert.rejects(transport.attach('again', disk), { code: ErrorCodes.Io, message: /`dd / });
  } finally {
    process.env['PATH'] = path;
  }
  await assert.rejects(transport.attach('again', disk), { code: ErrorCodes.Busy });
  const holder = Number(await readFile(join(programs, 'dd.pid'), 'utf8'));
  process.kill(holder);
  await (await transport.attach('again', disk)).detach();
  assert.deepEqual(await leftovers(), []);
});

test('a device whose file is held is gone, and detached when that ends', { skip }, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const device = await transport.attach('held', new MemoryDisk(pagesOf(1 << 20)));
  const file = await open(join(folder, 'devices', 'held', 'mount', 'disk'));
  assert.equal(device.isGone, false);
  await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
  assert.equal(device.isGone, true);
  await file.close();
  await device.detach();
  assert.deepEqual(await leftovers(), []);
});

/** A daemon in a process of its own, with one device; prints the device's path when it is there. */
const DAEMON = `
  const { NbdServer } = await import(process.argv[1] + '/../../nbd/nbd-server' + process.argv[3]);
  const { FuseTransport } = await import(process.argv[1] + '/../fuse-transport' + process.argv[3]);
  const folder = process.argv[2];
  const server = await NbdServer.listen(folder + '/nbd.sock');
  const transport = new FuseTransport(server, folder + '/nbd.sock', folder + '/devices');
  const disk = { label: 'zeroes', sizeBytes: 1 << 20, readLocal: (target) => (target.fill(7), true) };
  process.stdout.write((await transport.attach('orphan', disk)).path);
`;

async function startDaemon(folder: string): Promise<{ daemon: ChildProcess; device: string }> {
  const self = import.meta.filename;
  const daemon = spawn(
    process.execPath,
    [...process.execArgv, '--input-type=module', '--eval', DAEMON, self, folder, self.slice(-3)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [path] = await once(daemon.stdout!, 'data');
  return { daemon, device: String(path) };
}

test('the debris of a killed daemon is taken away when nobody uses it', { skip }, async (t) => {
  const folder = await folderFor(t);
  const directory = join(folder, 'devices');
  assert.deepEqual(await clearFuseDebris(directory), { cleared: [], inUse: [] });
  const { daemon, device } = await startDaemon(folder);
  daemon.kill('SIGKILL');
  await once(daemon, 'exit');

  const holder = spawn('sh', ['-c', 'exec 3<"$0"; echo; exec sleep 60', device]);
  await once(holder.stdout, 'data');
  assert.deepEqual(await clearFuseDebris(directory), { cleared: [], inUse: ['orphan'] });
  assert.notDeepEqual(await leftoversIn(directory), []);

  holder.kill('SIGKILL');
  await once(holder, 'exit');
  assert.deepEqual(await clearFuseDebris(directory), { cleared: ['orphan'], inUse: [] });
  assert.deepEqual(await leftoversIn(directory), []);
});

test('debris that cannot be unmounted is in nobody’s way', { skip }, async (t) => {
  const folder = await folderFor(t);
  const mountPoint = join(folder, 'devices', 'stuck', 'mount');
  await mkdir(mountPoint, { recursive: true });
  await run('mount', ['-t', 'tmpfs', 'obd-stuck', mountPoint]);
  const path = process.env['PATH'];
  const programs = join(folder, 'bin');
  await mkdir(programs);
  await writeFile(join(programs, 'umount'), '#!/bin/sh\necho no >&2\nexit 1\n', { mode: 0o755 });
  process.env['PATH'] = `${programs}:${path}`;
  try {
    const found = await clearFuseDebris(join(folder, 'devices'));
    assert.deepEqual(found, { cleared: [], inUse: ['stuck'] });
  } finally {
    process.env['PATH'] = path;
    await run('umount', [mountPoint]);
  }
});

test('devices of others, under other directories, are not debris', { skip }, async (t) => {
  const { transport, folder } = await start(t);
  const device = await transport.attach('mine', new MemoryDisk(pagesOf(1 << 20)));
  const elsewhere = join(folder, 'devices-of-others');
  await mkdir(elsewhere);
  await writeFile(join(elsewhere, 'README'), 'hello');
  assert.deepEqual(await clearFuseDebris(elsewhere), { cleared: ['README'], inUse: [] });
  await run('sha256sum', [device.path]);
  await device.detach();
});

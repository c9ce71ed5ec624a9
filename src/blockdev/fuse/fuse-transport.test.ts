/**
 * Goal: FuseTransport is a transport as the suite has it; failures leave nothing behind; a device continues from one
 * server to the next; its remains, whole or partial, are told apart and cleared unless in use.
 * Method: real devices, each test in a separate directory. Servers to be killed are child processes.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { exportDisk } from '../../../test/support/exported-disk.js';
import { ExportingTransport } from '../../../test/support/exporting-transport.js';
import { eventually, fuseFolder, fuseLeftovers } from '../../../test/support/fuse-folder.js';
import { type TransportUnderTest, transportSuite } from '../../../test/support/transport-suite.js';
import { readPage } from '../../../test/support/transport-under-test.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { EndableDisk } from '../endable-disk.js';
import { NbdServer } from '../nbd/nbd-server.js';
import { listHolders } from './fuse-file.js';
import { FuseTransport } from './fuse-transport.js';

const run = promisify(execFile);
const skip = await new FuseTransport('/nowhere', '/nowhere').unavailableReason();

interface Scene extends TransportUnderTest {
  readonly transport: ExportingTransport;
  readonly server: NbdServer;
}

async function start(t: TestContext): Promise<Scene> {
  const folder = await fuseFolder(t);
  const server = await NbdServer.listen(join(folder, 'nbd.sock'));
  t.after(() => server.close());
  const directory = join(folder, 'devices');
  const again = () => new ExportingTransport(server, join(folder, 'nbd.sock'), directory);
  return { transport: again(), again, server, folder, leftovers: () => leftoversIn(directory) };
}

async function leftoversIn(directory: string): Promise<string[]> {
  return [...(await fuseLeftovers(directory)), ...(await readdir(directory).catch(() => []))];
}

async function killHolder(file: string): Promise<void> {
  const [pid] = (await listHolders()).get(file) ?? [];
  assert.ok(pid !== undefined);
  process.kill(pid, 'SIGKILL');
  await eventually('the holder is gone', async () => !(await listHolders()).has(file));
}

/** Keeps the device open in a separate process. */
async function hold(t: TestContext, device: string): Promise<() => Promise<void>> {
  const holder = spawn('sh', ['-c', 'exec 3<"$0"; echo; exec sleep 60', device]);
  const letGo = async () => {
    if (holder.kill('SIGKILL')) await once(holder, 'exit');
  };
  t.after(letGo);
  await once(holder.stdout, 'data');
  return letGo;
}

transportSuite('fuse', skip, start);

test('fuse: a device reads past the page cache of its file, to which no path leads', {
  skip,
}, async (t) => {
  const { transport, folder } = await start(t);
  const mountsBefore = await readFile('/proc/self/mountinfo', 'utf8');
  const device = await transport.attach('direct', new MemoryDisk(pagesOf(1 << 20)));
  const loop = device.path.slice('/dev/'.length);
  assert.equal(await readFile(`/sys/block/${loop}/loop/dio`, 'utf8'), '1\n');
  const home = join(folder, 'devices', 'direct');
  assert.equal(await readFile(`/sys/block/${loop}/loop/backing_file`, 'utf8'), `${home}/disk\n`);
  assert.deepEqual(await readdir(home), ['log']);
  const [pid] = (await listHolders()).get(join(home, 'disk')) ?? [];
  for (const who of ['self', String(pid)]) {
    const mounts = await readFile(`/proc/${who}/mountinfo`, 'utf8');
    assert.doesNotMatch(mounts.replace(mountsBefore, ''), /fuse\.obd-ts/);
  }
  await device.detach();
});

test('fuse: attach() names a missing export, and leaves nothing', { skip }, async (t) => {
  const { folder, leftovers } = await start(t);
  const transport = new FuseTransport(join(folder, 'nbd.sock'), join(folder, 'devices'));
  await assert.rejects(transport.attach('none', new MemoryDisk(pagesOf(1 << 20))), {
    code: ErrorCodes.Io,
    message: /no export "none"/,
  });
  const nobody = new FuseTransport(join(folder, 'other.sock'), join(folder, 'devices'));
  await assert.rejects(nobody.attach('none', new MemoryDisk(pagesOf(1 << 20))), {
    code: ErrorCodes.Io,
    message: /Cannot connect to ".*other\.sock"/,
  });
  assert.deepEqual(await leftovers(), []);
});

test('fuse: a device whose holder was killed can be detached', { skip }, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const device = await transport.attach('killed', new MemoryDisk(pagesOf(1 << 20)));
  await killHolder(join(folder, 'devices', 'killed', 'disk'));
  await device.detach();
  assert.deepEqual(await leftovers(), []);
});

test('fuse: a holder that is killed is reported once within a second, and one that ends with its device is not', {
  skip,
}, async (t) => {
  const folder = await fuseFolder(t);
  const dead: string[] = [];
  const socketPath = join(folder, 'nbd.sock');
  const server = await NbdServer.listen(socketPath);
  t.after(() => server.close());
  const settings = { onDeath: (id: string) => dead.push(id) };
  const transport = new FuseTransport(socketPath, join(folder, 'devices'), settings);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  for (const id of ['killed', 'detached']) exportDisk(server, id, disk);
  const device = await transport.attach('killed', disk);
  await (await transport.attach('detached', disk)).detach();
  await killHolder(join(folder, 'devices', 'killed', 'disk'));
  await sleep(1000);
  assert.deepEqual(dead, ['killed']);
  await device.detach();
  await sleep(300);
  assert.deepEqual(dead, ['killed']);
});

test('fuse: a dead device that is in use is detached, and its id attached anew', {
  skip,
}, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const bytes = pagesOf(1 << 20);
  const dead = await transport.attach('dead', new MemoryDisk(bytes));
  const letGo = await hold(t, dead.path);
  await killHolder(join(folder, 'devices', 'dead', 'disk'));
  await dead.detach();
  const next = await transport.attach('dead', new MemoryDisk(bytes));
  assert.notEqual(next.path, dead.path);
  assert.deepEqual(await readPage(next.path, 4096), bytes.subarray(4096, 8192));
  await letGo();
  assert.deepEqual(await readPage(next.path, 8192), bytes.subarray(8192, 12288));
  await next.detach();
  assert.deepEqual(await leftovers(), []);
});

test('fuse: on a disk without room for a directory, devices come, survive and go all the same', {
  skip,
}, async (t) => {
  const folder = await fuseFolder(t);
  const socketPath = join(folder, 'nbd.sock');
  const server = await NbdServer.listen(socketPath);
  t.after(() => server.close());
  const full = join(folder, 'full');
  await mkdir(full);
  // Its one inode is its root.
  await run('mount', ['-t', 'tmpfs', '-o', 'size=64k,nr_inodes=1', 'obd-test', full]);
  try {
    const directory = join(full, 'devices', 'fuse');
    const bytes = pagesOf(1 << 20);
    const first = new ExportingTransport(server, socketPath, directory);
    assert.deepEqual(await first.orphans(), []);
    const disk = new MemoryDisk(bytes);
    for (const id of ['one', 'two']) {
      const { path } = await first.attach(id, disk);
      assert.deepEqual(await readPage(path, 4096), bytes.subarray(4096, 8192));
    }
    const next = new FuseTransport(socketPath, directory);
    const found = (await next.orphans()).map(({ id }) => id).sort();
    assert.deepEqual(found, ['one', 'two']);
    await assert.rejects(next.attach('one', disk), { code: ErrorCodes.Busy });
    await (await next.resume('one', disk)).detach();
    await next.clear('two');
    assert.deepEqual(await fuseLeftovers(full), []);
  } finally {
    await run('umount', ['--lazy', full]);
  }
});

test('fuse: detaching a device that has no user any more ends its waiting reads', {
  skip,
}, async (t) => {
  const { transport, leftovers } = await start(t);
  const disk = new EndableDisk(new WaitingDisk(pagesOf(64 << 20), 1 << 20));
  const device = await transport.attach('waiting', disk);
  const reader = spawn('dd', [`if=${device.path}`, 'of=/dev/null', 'bs=1M', 'skip=4']);
  t.after(() => reader.kill('SIGKILL'));
  await sleep(300);
  await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
  assert.equal(reader.exitCode, null, 'a device in use keeps its waiting reads');
  reader.kill('SIGKILL');
  const startedMs = performance.now();
  await eventually('the device can be detached', () =>
    device.detach().then(
      () => true,
      () => false,
    ),
  );
  assert.ok(performance.now() - startedMs < 5000);
  assert.deepEqual(await leftovers(), []);
});

/** A daemon in a separate process: serves `orphan`, attached or resumed, and prints its node. */
const DAEMON = `
  const [self, folder, action, sizeBytes] = process.argv.slice(1);
  const { NbdServer } = await import(self + '/../../nbd/nbd-server' + self.slice(-3));
  const { exportDisk } = await import(self + '/../../../../test/support/exported-disk' + self.slice(-3));
  const { FuseTransport } = await import(self + '/../fuse-transport' + self.slice(-3));
  const { pagesOf, MemoryDisk } = await import(self + '/../../../../test/support/virtual-disks' + self.slice(-3));
  const server = await NbdServer.listen(folder + '/nbd.sock');
  const transport = new FuseTransport(folder + '/nbd.sock', folder + '/devices');
  const disk = new MemoryDisk(pagesOf(Number(sizeBytes)));
  exportDisk(server, 'orphan', disk);
  process.stdout.write((await transport[action]('orphan', disk)).path);
`;
const SIZE_BYTES = 8 << 20;

interface Daemon {
  readonly device: string;
  kill(): Promise<void>;
}

async function startDaemon(
  t: TestContext,
  folder: string,
  action: 'attach' | 'resume',
): Promise<Daemon> {
  const self = import.meta.filename;
  const daemon: ChildProcess = spawn(
    process.execPath,
    [
      ...process.execArgv.filter((each) => each !== '--test'),
      ...['--input-type=module', '--eval', DAEMON, self, folder, action, String(SIZE_BYTES)],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const kill = async () => {
    if (daemon.kill('SIGKILL')) await once(daemon, 'exit');
  };
  t.after(kill);
  const [path] = await Promise.race([once(daemon.stdout!, 'data'), once(daemon, 'exit')]);
  assert.match(String(path), /^\/dev\/loop/);
  return { device: String(path), kill };
}

test('fuse: reads wait for the next server while none is there, however often it is killed', {
  skip,
}, async (t) => {
  const folder = await fuseFolder(t);
  const directory = join(folder, 'devices');
  let daemon = await startDaemon(t, folder, 'attach');
  const { device } = daemon;
  // Reads all of it, over and over, and says "differs" once it is not as it was.
  const reader = spawn('sh', [
    '-c',
    'while sum=$(dd if="$0" bs=64k iflag=direct status=none | sha256sum); do echo "$sum"; done',
    device,
  ]);
  t.after(() => reader.kill('SIGKILL'));
  const sums: string[] = [];
  reader.stdout.setEncoding('utf8').on('data', (text: string) => {
    sums.push(...text.split('\n').filter((line) => line !== ''));
  });
  for (let round = 0; round < 3; round++) {
    await sleep(200);
    await daemon.kill();
    const seen = sums.length;
    const successor = new FuseTransport(join(folder, 'nbd.sock'), directory);
    assert.deepEqual(await successor.orphans(), [{ id: 'orphan', path: device }]);
    daemon = await startDaemon(t, folder, 'resume');
    assert.equal(daemon.device, device);
    await eventually('reading goes on', () => sums.length >= seen + 3);
  }
  reader.kill('SIGKILL');
  await once(reader, 'exit');
  const { stdout } = await run('sha256sum', [device]);
  assert.deepEqual([...new Set(sums)], [`${stdout.slice(0, 64)}  -`]);
  const log = await readFile(join(directory, 'orphan', 'log'), 'utf8');
  assert.match(log, /reads wait\n.*The server is back/);
});

test('fuse: clear() removes an orphan once it has no user', { skip }, async (t) => {
  const folder = await fuseFolder(t);
  const directory = join(folder, 'devices');
  const daemon = await startDaemon(t, folder, 'attach');
  await daemon.kill();
  const successor = new FuseTransport(join(folder, 'nbd.sock'), directory);
  const letGo = await hold(t, daemon.device);
  await assert.rejects(successor.clear('orphan'), { code: ErrorCodes.Busy });
  assert.deepEqual(await successor.orphans(), [{ id: 'orphan', path: daemon.device }]);
  await letGo();
  await successor.clear('orphan');
  await successor.clear('orphan');
  assert.deepEqual(await leftoversIn(directory), []);
});

test('fuse: an orphan without its holder is dead, and cleared though it is open', {
  skip,
}, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const disk = new MemoryDisk(pagesOf(1 << 20));
  const device = await transport.attach('half', disk);
  await device.release();
  await killHolder(join(folder, 'devices', 'half', 'disk'));
  const letGo = await hold(t, device.path);
  assert.deepEqual(await transport.orphans(), [
    { id: 'half', path: undefined, deadPath: device.path },
  ]);
  await assert.rejects(transport.resume('half', disk), { code: ErrorCodes.NotFound });
  await transport.clear('half');
  assert.deepEqual(await leftovers(), []);
  await letGo();
  await assert.rejects(readFile(`/sys/block/${device.path.slice(5)}/loop/backing_file`));
});

test('fuse: an orphan that is cleared has its waiting reads ended', { skip }, async (t) => {
  const folder = await fuseFolder(t);
  const directory = join(folder, 'devices');
  const daemon = await startDaemon(t, folder, 'attach');
  await daemon.kill();
  const reader = spawn('dd', [`if=${daemon.device}`, 'of=/dev/null', 'bs=1M', 'skip=4']);
  t.after(() => reader.kill('SIGKILL'));
  await sleep(300);
  // The killed process closes the device, and the kernel blocks that close until the reads are answered.
  reader.kill('SIGKILL');
  await sleep(100);
  const startedMs = performance.now();
  await new FuseTransport(join(folder, 'nbd.sock'), directory).clear('orphan');
  assert.ok(performance.now() - startedMs < 5000);
  assert.deepEqual(await leftoversIn(directory), []);
});

test('fuse: an orphan is not resumed with a disk of another size', { skip }, async (t) => {
  const { transport, leftovers } = await start(t);
  const device = await transport.attach('size', new MemoryDisk(pagesOf(1 << 20)));
  await device.release();
  const other = new MemoryDisk(pagesOf(2 << 20));
  await assert.rejects(transport.resume('size', other), { code: ErrorCodes.FailedPrecondition });
  const resumed = await transport.resume('size', new MemoryDisk(pagesOf(1 << 20)));
  await resumed.detach();
  assert.deepEqual(await leftovers(), []);
});

test('fuse: partial remains of every kind are listed as orphans without a path, and cleared', {
  skip,
}, async (t) => {
  const { transport, folder, leftovers } = await start(t);
  const directory = join(folder, 'devices');
  assert.deepEqual(await transport.orphans(), []);
  await mkdir(join(directory, 'empty'), { recursive: true });
  await mkdir(join(directory, 'unmounted'));
  await writeFile(join(directory, 'unmounted', 'disk'), '');
  const device = await transport.attach('no-loop', new MemoryDisk(pagesOf(1 << 20)));
  await device.release();
  await run('losetup', ['--detach', device.path]);
  const found = await transport.orphans();
  assert.deepEqual(
    found.sort((a, b) => (a.id < b.id ? -1 : 1)),
    ['empty', 'no-loop', 'unmounted'].map((id) => ({ id, path: undefined })),
  );
  for (const { id } of found) await transport.clear(id);
  assert.deepEqual(await leftovers(), []);
});

test('fuse: devices under another directory are no orphans', { skip }, async (t) => {
  const { transport, folder } = await start(t);
  const device = await transport.attach('mine', new MemoryDisk(pagesOf(1 << 20)));
  const other = new FuseTransport(join(folder, 'nbd.sock'), join(folder, 'others'));
  assert.deepEqual(await other.orphans(), []);
  await other.clear('mine');
  await run('sha256sum', [device.path]);
  await device.detach();
});

/**
 * Goal: UblkTransport is a transport as the suite has it; a device outlives its server, however and whenever that ends;
 * the remains that a crash leaves of a device are found and taken away. A missing driver is reported.
 * Method: real devices, where the kernel has ublk_drv, each test with a separate directory. The server to be killed is a
 * child process or a thread.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { type TransportUnderTest, transportSuite } from '../../../test/support/transport-suite.js';
import { MemoryDisk, pagesOf } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { UblkTransport } from './ublk-transport.js';

const run = promisify(execFile);
const hasDriver = existsSync('/dev/ublk-control');
const skip = hasDriver ? undefined : 'this kernel has no ublk_drv';
const options = skip === undefined ? {} : { skip };
const DISK_BYTES = 16 << 20;

async function start(t: TestContext): Promise<TransportUnderTest & { transport: UblkTransport }> {
  const folder = await mkdtemp('/var/tmp/obd-ublk-');
  t.after(() => rm(folder, { recursive: true, force: true }));
  const directory = join(folder, 'devices');
  const leftovers = async () => {
    const files = await readdir(directory).catch(() => []);
    const nodes = (await readdir('/dev')).filter((name) => /^ublk[bc]/.test(name));
    return [...files, ...(await readdir('/sys/class/ublk-char')), ...nodes];
  };
  const again = () => new UblkTransport(directory);
  return { transport: again(), again, folder, leftovers };
}

transportSuite('ublk', skip, start);

test('without the driver, attach() says what to do', {
  skip: hasDriver && 'it has it',
}, async (t) => {
  const { transport } = await start(t);
  assert.match((await transport.unavailableReason()) ?? '', /modprobe ublk_drv|io_uring|seccomp/);
  const attach = transport.attach('none', new MemoryDisk(pagesOf(4096)));
  await assert.rejects(attach, { code: ErrorCodes.Host, message: /^ublk cannot be used: / });
  assert.deepEqual(await transport.orphans(), []);
});

/** Adds a device and does not start it; with 'fetch' it could be started. Prints something then. */
const BEGINNER = `
  const [self, folder, step, suffix] = process.argv.slice(1);
  const from = (name) => import(self + '/../' + name + suffix);
  const { UblkControl } = await from('ublk-control');
  const { UblkDevices } = await from('ublk-devices');
  const { UblkQueue } = await from('ublk-queue');
  const numbers = await new UblkDevices(folder + '/devices').claim('victim');
  const device = { deviceId: 0xffffffff, state: 0, depth: 8, ioBytesMax: 65536, features: 0x58, serverPid: process.pid };
  const { deviceId } = await UblkControl.ofThread().add({ ...device, ...numbers });
  if (step === 'fetch') new UblkQueue('/dev/ublkc' + deviceId, 8, 65536, {}, () => {});
  process.stdout.write('added');
  setInterval(() => {}, 1000);
`;

function startChild(script: string, folder: string, step: string): ChildProcess {
  const self = import.meta.filename;
  const args = ['--input-type=module', '--eval', script, self, folder, step, self.slice(-3)];
  return spawn(process.execPath, [...process.execArgv, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

async function firstWords(child: ChildProcess): Promise<string> {
  const [words] = await Promise.race([
    once(child.stdout!, 'data'),
    once(child, 'exit').then(() => assert.fail('it ended')),
  ]);
  return String(words);
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

test('devices are released under load, again and again', options, async (t) => {
  const { transport, leftovers } = await start(t);
  const disk = new MemoryDisk(pagesOf(DISK_BYTES));
  let device = await transport.attach('again', disk);
  const load = ['--rw=randread', '--bs=4k', '--iodepth=32', '--ioengine=libaio', '--direct=1'];
  const time = ['--time_based', '--runtime=8', '--readonly', '--minimal'];
  const fio = run('fio', ['--name=r', `--filename=${device.path}`, ...load, ...time]);
  let running = true;
  const ended = fio.finally(() => {
    running = false;
  });
  let turns = 0;
  for (; running; turns++) {
    await setTimeout(20);
    await device.release();
    device = await transport.resume('again', disk);
  }
  await ended;
  t.diagnostic(`${turns} times`);
  assert.ok(turns > 10);
  await device.detach();
  assert.deepEqual(await leftovers(), []);
});

for (const step of ['add', 'fetch']) {
  test(`a server killed after ${step} leaves an orphan without a path`, options, async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const child = startChild(BEGINNER, folder, step);
    await firstWords(child);
    await kill(child);
    assert.notDeepEqual(await leftovers(), []);
    assert.deepEqual(await transport.orphans(), [{ id: 'victim', path: undefined }]);
    await assert.rejects(transport.resume('victim', new MemoryDisk(pagesOf(4096))), {
      code: ErrorCodes.NotFound,
    });
    await transport.clear('victim');
    await transport.clear('victim');
    assert.deepEqual(await leftovers(), []);
  });
}

/** A device in a thread; says its path, and detaches when it is told to. */
const THREAD = `
  const { parentPort, workerData } = require('node:worker_threads');
  (async () => {
    const { UblkTransport } = await import(workerData.self + '/../ublk-transport' + workerData.suffix);
    const disk = { label: 'sevens', sizeBytes: 1 << 20, tryRead: (target) => (target.fill(7), true) };
    const device = await new UblkTransport(workerData.directory)[workerData.step]('threaded', disk);
    parentPort.postMessage(device.path);
    parentPort.once('message', async () => {
      await device.detach();
      parentPort.postMessage('detached');
    });
  })();
`;

test(
  'a device is served in a thread, outlives it, and is resumed in another',
  options,
  async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const self = import.meta.filename;
    const suffix = self.slice(-3);
    const directory = join(folder, 'devices');
    const work = (step: string) =>
      new Worker(THREAD, { eval: true, workerData: { self, suffix, directory, step } });
    const first = work('attach');
    const [path] = await once(first, 'message');
    assert.deepEqual(await transport.orphans(), []);
    const file = await open(path);
    const page = Buffer.alloc(4096);
    await file.read(page, 0, 4096, 0);
    assert.deepEqual(page, Buffer.alloc(4096, 7));
    await first.terminate();
    assert.deepEqual(await transport.orphans(), [{ id: 'threaded', path }]);
    const second = work('resume');
    assert.deepEqual(await once(second, 'message'), [path]);
    await file.read(page, 0, 4096, 8192);
    await file.close();
    second.postMessage('detach');
    assert.deepEqual(await once(second, 'message'), ['detached']);
    await second.terminate();
    assert.deepEqual(await leftovers(), []);
  },
);

test(
  'a device that another program has stopped is gone, and can be detached',
  options,
  async (t) => {
    const { transport, again, leftovers } = await start(t);
    const device = await transport.attach('stopped', new MemoryDisk(pagesOf(1 << 20)));
    // As another program: this transport has the id.
    await again().clear('stopped');
    assert.equal(device.isGone, true);
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  },
);

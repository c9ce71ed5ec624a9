/**
 * Goal: NbdTransport is a transport as the suite has it; missing features of the kernel or process are reported; a device
 * that lost its server waits and continues without an error; objects of other daemons and programs stay untouched.
 * Method: real devices, each test with a separate directory.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type TransportUnderTest, transportSuite } from '../../../test/support/transport-suite.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { settledPath } from '../../io/settled-path.js';
import type { DeviceFailure } from '../transport.js';
import { listNamedDevices } from './nbd-devices.js';
import {
  closeSocket,
  connectDevice,
  DESTROY_ON_DISCONNECT,
  disconnectDevice,
  openSocketPair,
  reconfigureDevice,
} from './nbd-netlink.js';
import { NbdTransport } from './nbd-transport.js';
import { unusedIndexes } from './unused-indexes.js';

const run = promisify(execFile);
const hasModule = existsSync('/sys/module/nbd');
const skip =
  process.getuid?.() !== 0
    ? 'it takes root'
    : !hasModule
      ? 'this kernel has no nbd, or has not loaded it'
      : undefined;

interface Scene extends TransportUnderTest {
  readonly transport: NbdTransport;
  readonly directory: string;
  readonly failures: DeviceFailure[];
}

async function start(t: TestContext): Promise<Scene> {
  const folder = await mkdtemp('/var/tmp/obd-nbd-');
  t.after(() => rm(folder, { recursive: true }));
  const directory = join(folder, 'devices');
  const failures: DeviceFailure[] = [];
  const transport = new NbdTransport(directory, {
    onReadError: (failure) => failures.push(failure),
  });
  const again = () => new NbdTransport(directory);
  return { transport, again, folder, directory, failures, leftovers: () => leftoversOf(directory) };
}

/** The devices of this directory's daemon, nodes beyond those the module came with, and files. */
async function leftoversOf(directory: string): Promise<string[]> {
  const prefix = await prefixOf(directory);
  const named = (await listNamedDevices()).map(({ backend }) => backend);
  const made = Number(await readFile('/sys/module/nbd/parameters/nbds_max', 'utf8'));
  const nodes = (await readdir('/sys/block')).filter(
    (name) => name.startsWith('nbd') && Number(name.slice(3)) >= made,
  );
  const files = await readdir(directory).catch(() => []);
  return [...named.filter((backend) => backend.startsWith(prefix)), ...nodes, ...files];
}

async function prefixOf(directory: string): Promise<string> {
  const hash = createHash('sha256').update(await settledPath(directory));
  return `obd-ts/${hash.digest('hex').slice(0, 16)}/`;
}

transportSuite('nbd', skip, start);

test('unusedIndexes() leaves out the numbers of the module, those in use and those without a minor', () => {
  assert.deepEqual(unusedIndexes(new Set([0, 16, 18]), 16, 31, 3), [17, 19, 20]);
  assert.deepEqual(unusedIndexes(new Set(), 0, 0, 2), [0, 1]);
  const all = new Set(Array.from({ length: 4096 }, (_, index) => index));
  assert.deepEqual(unusedIndexes(all, 16, 255, 1), []);
  all.delete(4095);
  assert.deepEqual(unusedIndexes(all, 16, 255, 2), [4095]);
});

test('without the module, attach() says how to load it', {
  skip: hasModule && 'this kernel has it',
}, async (t) => {
  const { transport } = await start(t);
  assert.match((await transport.unavailableReason()) ?? '', /modprobe nbd/);
  const attach = transport.attach('none', new MemoryDisk(pagesOf(4096)));
  await assert.rejects(attach, { code: ErrorCodes.Host, message: /modprobe nbd/ });
  assert.deepEqual(await transport.orphans(), []);
  await transport.clear('none');
  await assert.rejects(transport.resume('none', new MemoryDisk(pagesOf(4096))), {
    code: ErrorCodes.NotFound,
  });
});

test('the kernel waits for a read that takes longer than its timer', { skip }, async (t) => {
  const { transport, failures } = await start(t);
  const disk = new WaitingDisk(pagesOf(4 << 20), 1 << 20);
  const device = await transport.attach('slow', disk);
  const what = [`if=${device.path}`, 'bs=4096', 'count=1', 'skip=700', 'iflag=direct'];
  const reading = run('dd', [...what, 'status=none'], { encoding: 'buffer' });
  await sleep(8000);
  disk.arrive();
  const { stdout } = await reading;
  assert.ok(stdout.equals(disk.bytes.subarray(700 * 4096, 701 * 4096)));
  assert.deepEqual(failures, []);
  await device.detach();
});

test('clear() takes only seconds for a device that was never read and has no server', {
  skip,
}, async (t) => {
  const { transport, directory, leftovers } = await start(t);
  assert.deepEqual(await transport.orphans(), []);
  const [ours, kernels] = openSocketPair();
  const backendIdentifier = `${await prefixOf(directory)}unread`;
  const size = { sizeBytes: 1 << 20, blockSize: 512, serverFlags: 0x3 };
  const times = { timeoutSeconds: 0, deadConnTimeoutSeconds: 2, index: 900 };
  const clientFlags = DESTROY_ON_DISCONNECT;
  const sockets = [kernels];
  await connectDevice({ sockets, clientFlags, backendIdentifier, ...size, ...times });
  closeSocket(kernels);
  closeSocket(ours);
  assert.deepEqual(await transport.orphans(), [{ id: 'unread', path: '/dev/nbd900' }]);
  const begun = Date.now();
  await transport.clear('unread');
  assert.ok(Date.now() - begun < 8000);
  assert.deepEqual(await leftovers(), []);
});

test('a device that another program disconnected can be detached', { skip }, async (t) => {
  const { transport, leftovers } = await start(t);
  const device = await transport.attach('pulled', new MemoryDisk(pagesOf(1 << 20)));
  await disconnectDevice(Number(device.path.slice('/dev/nbd'.length)));
  await device.detach();
  assert.equal(device.isGone, true);
  assert.deepEqual(await leftovers(), []);
});

test('looking for partitions, the kernel reads no more than attach() made local', {
  skip,
}, async (t) => {
  const { transport, leftovers } = await start(t);
  const device = await transport.attach('scan', new WaitingDisk(pagesOf(64 << 20), 16384));
  await device.detach();
  assert.deepEqual(await leftovers(), []);
});

test('a number in use, and a name that is not the device, are refused by the kernel', {
  skip,
}, async (t) => {
  const { transport } = await start(t);
  const device = await transport.attach('taken', new MemoryDisk(pagesOf(1 << 20)));
  const index = Number(device.path.slice('/dev/nbd'.length));
  const [ours, kernels] = openSocketPair();
  const sockets = [kernels];
  const what = { sizeBytes: 512, blockSize: 512, serverFlags: 1, clientFlags: 0, index, sockets };
  const times = { timeoutSeconds: 0, deadConnTimeoutSeconds: 0 };
  const backendIdentifier = 'other';
  await assert.rejects(connectDevice({ ...what, ...times, backendIdentifier }), {
    code: ErrorCodes.Busy,
  });
  const reconfigure = reconfigureDevice({ index, ...times, sockets, backendIdentifier });
  await assert.rejects(reconfigure, { code: ErrorCodes.NotFound });
  closeSocket(ours);
  closeSocket(kernels);
  await device.detach();
});

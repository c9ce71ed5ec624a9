/**
 * Goal: the table keeps its guarantees (idempotent, never overlapping, a busy device unchanged, a record as long as
 * anything exists), failures leave nothing behind, and orphans of an earlier process are served again or cleared.
 * Method: real images from a loopback registry through cache, layers and NBD server, with the daemon's device threads on
 * this one; in place of the kernel a transport that can be held up and refused, and once the real one.
 */
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { twoLayers } from '../../test/support/block-image.js';
import { exportDisk } from '../../test/support/exported-disk.js';
import { localThreads } from '../../test/support/local-threads.js';
import { type Fault, LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { TransportDouble } from '../../test/support/transport-double.js';
import { NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { TransportName } from '../blockdev/transport.js';
import { makeTransports, type Transports } from '../blockdev/transports.js';
import type { VirtualDisk } from '../blockdev/virtual-disk.js';
import { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { writeImageConfig } from '../image/image-config.js';
import { readFully } from '../io/random-access-file.js';
import { KeptOrders } from '../load-order/kept-orders.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { BackgroundFill } from './background-fill.js';
import { DemandWatch } from './demand-watch.js';
import { DeviceRecords } from './device-records.js';
import { DeviceTable } from './device-table.js';
import { ExpectedStarts } from './expected-starts.js';
import { HotImages } from './hot-images.js';
import { recoverDevices } from './recovery.js';
import { StartAdvices } from './start-advice.js';
import { WorkerDeviceHost } from './worker-device-host.js';

const unfit = process.geteuid?.() === 0 ? false : 'loop devices need root';
const noNbdcopy =
  spawnSync('nbdcopy', ['--version']).error === undefined ? false : 'nbdcopy is not installed';
const DISK_BYTES = 2 << 20;

const directory = await mkdtemp('/var/tmp/obd-table.');
const nbdSocketPath = join(directory, 'nbd.sock');
const registry = await LoopbackRegistry.start();
const image = twoLayers(DISK_BYTES);
const lowers = image.blobs.map((blob) => ({ digest: registry.addBlob(blob), size: blob.length }));
const client = new RegistryClient({
  hosts: new RegistryHosts([]),
  credentials: { label: 'none', find: async () => undefined },
  limits: { ...DEFAULT_LIMITS, backoffMs: 1, attemptsMax: 2 },
});
const cache = await BlockCache.open(join(directory, 'cache'), {
  capacityBytes: 1 << 30,
  reserveBytes: 0,
});
const nbd = await NbdServer.listen(nbdSocketPath);
after(async () => {
  for (const host of hosts) await host.close();
  await nbd.close();
  await cache.close();
  await client.close();
  await registry.close();
  await rm(directory, { recursive: true });
});

async function configFile(name: string, layers: object[] = lowers): Promise<string> {
  const path = join(directory, name);
  const repoBlobUrl = `http://${registry.host}/v2/x/y/blobs`;
  await writeImageConfig(path, {
    repoBlobUrl,
    lowers: layers,
    upper: {},
    resultFile: '',
    accelerationLayer: false,
  });
  return path;
}

const good = await configFile('good.json');
const other = await configFile('other.json');
const broken = await configFile('broken.json', [{ digest: `sha256:${'0'.repeat(64)}`, size: 9 }]);

let kernel: TransportDouble;
/** The transport to try first, if a test sets one. */
let better: TransportDouble;
let transports: Transports;
let candidates: TransportName[];
let table: DeviceTable;
let records: DeviceRecords;
let problems: string[];

const recordsDirectory = join(directory, 'records');
const silent = pino({ level: 'silent' });

const hosts: WorkerDeviceHost[] = [];

function startsOf(): ExpectedStarts {
  const advices = new StartAdvices(client, new KeptOrders(join(directory, 'orders')));
  const hotImages = new HotImages(cache, client);
  return new ExpectedStarts({ cache, client, hotImages, advices, isUsed: true, log: silent });
}

function hostOver(used: Transports): WorkerDeviceHost {
  const demand = new DemandWatch();
  const host = new WorkerDeviceHost({
    program: localThreads(used),
    demand,
    fill: new BackgroundFill(cache, demand, undefined, silent),
    fillImages: { isEnabled: false, delayMs: 0, idleMs: 0 },
    cache,
    client,
    nbd,
    nbdSocketPath,
    directory: join(directory, 'devices'),
    readDeadlineMs: 30_000,
    indexBytes: 512 * 2 ** 20,
    onRequest: () => {},
    onReadError: () => {},
    onDeviceDeath: assert.fail,
    starts: startsOf(),
    recordings: { take: () => undefined, closed: () => {} },
    onRecorded: () => {},
    onPagesRead: () => {},
    onReplay: () => {},
    onReplayFailure: () => {},
    onDeath: assert.fail,
    onUnchecked: assert.fail,
    onUnloadable: assert.fail,
  });
  hosts.push(host);
  return host;
}

function tableOver(used: Transports): DeviceTable {
  return new DeviceTable({
    host: hostOver(used),
    records,
    transports: used,
    candidates: async () => candidates,
    nbdSocketPath,
    report: ({ id, msg, transport = '', next = '' }) =>
      problems.push(`${id}: ${msg} ${transport} ${next}`.trimEnd()),
  });
}

async function recordedIds(): Promise<string[]> {
  return (await records.all((problem) => problems.push(problem.message)))
    .map(({ id }) => id)
    .sort();
}

beforeEach(async () => {
  await rm(recordsDirectory, { recursive: true, force: true });
  await mkdir(recordsDirectory);
  records = new DeviceRecords(recordsDirectory, join(directory, 'spare'), async () => false);
  kernel = new TransportDouble('nbd');
  better = new TransportDouble('ublk');
  const unused = new TransportDouble('tcmu');
  transports = { ublk: better, tcmu: unused, nbd: kernel, fuse: new TransportDouble('fuse') };
  candidates = ['nbd'];
  problems = [];
  table = tableOver(transports);
});

/** Nothing of the id is left: the name is free for another export. */
async function assertFree(id: string): Promise<void> {
  await exportDisk(nbd, id, kernel.disk as VirtualDisk).remove();
}

test('a device reads as its image, and has its figures', async () => {
  const device = await table.attach('a', good);
  assert.deepEqual(
    { ...device, cachedBytes: 0, fetchedBytes: 0, fetchRequests: 0 },
    {
      id: 'a',
      configPath: good,
      path: '/dev/test-a',
      transport: 'nbd',
      sizeBytes: DISK_BYTES,
      layers: 2,
      remoteBytes: image.blobs.reduce((sum, { length }) => sum + length, 0),
      remoteLayers: image.blobs.length,
      provedLayers: 0,
      cachedBytes: 0,
      fetchedBytes: 0,
      fetchRequests: 0,
      readErrors: 0,
      waitingReads: 0,
      waitingMs: 0,
      waitingReason: '',
      fillState: '',
      fillProblem: '',
      hotPages: 0,
      hotPagesRead: 0,
      nbdUri: `nbd+unix:///a?socket=${encodeURIComponent(nbdSocketPath)}`,
      state: 'attached',
      problem: '',
    },
  );
  const bytes = Buffer.alloc(DISK_BYTES);
  await readFully(kernel.disk as VirtualDisk, bytes, 0);
  assert.ok(bytes.equals(image.disk));
  const [listed] = table.list();
  assert.equal(listed?.cachedBytes, listed?.remoteBytes);
  assert.ok((listed?.fetchRequests ?? 0) > 0);
  assert.equal(listed?.fetchedBytes, listed?.remoteBytes);
  assert.equal(await table.detach('a'), true);
  assert.deepEqual(table.list(), []);
  assert.equal(await table.detach('a'), false);
});

test('concurrent and repeated attach() calls of one id attach one device', async () => {
  const devices = await Promise.all(Array.from({ length: 5 }, () => table.attach('a', good)));
  assert.deepEqual(kernel.attached, ['a']);
  assert.equal(new Set(devices.map(({ path }) => path)).size, 1);
  await table.attach('a', good);
  assert.deepEqual(kernel.attached, ['a']);
  await assert.rejects(table.attach('a', other), {
    code: ErrorCodes.AlreadyExists,
    message: /good\.json/,
  });
  await Promise.all([table.detach('a'), table.detach('a')]);
  assert.deepEqual(kernel.attached, []);
  await table.attach('a', other);
  await table.detach('a');
});

test('all concurrent attach() calls get the failure, and the next call tries again', async () => {
  kernel.refusal = new ObdError(ErrorCodes.Host, 'Cannot attach: no FUSE');
  const attempts = await Promise.allSettled([table.attach('a', good), table.attach('a', good)]);
  for (const attempt of attempts) {
    assert.equal(attempt.status, 'rejected');
    const { reason } = attempt as PromiseRejectedResult;
    assert.ok(reason instanceof ObdError);
    assert.deepEqual([reason.code, reason.message], [ErrorCodes.Host, kernel.refusal.message]);
  }
  assert.deepEqual(table.list(), []);
  kernel.refusal = undefined;
  await table.attach('a', good);
  await table.detach('a');
  await assertFree('a');
});

test('attach() of an image that cannot be opened leaves nothing', async () => {
  await assert.rejects(table.attach('a', broken), { code: ErrorCodes.NotFound });
  await assert.rejects(table.attach('a', join(directory, 'none.json')), {
    code: ErrorCodes.NotFound,
  });
  assert.deepEqual([kernel.attached, table.list()], [[], []]);
  await table.attach('a', good);
  await table.detach('a');
});

test('detach() of a busy device fails with Busy and changes nothing', async () => {
  await table.attach('a', good);
  kernel.inUse.add('a');
  await assert.rejects(table.detach('a'), { code: ErrorCodes.Busy });
  assert.equal((await table.attach('a', good)).path, '/dev/test-a');
  await readFully(kernel.disk as VirtualDisk, Buffer.alloc(4096), 0);
  kernel.inUse.clear();
  await table.detach('a');
  await assertFree('a');
});

test('detach() does not wait for a silent registry', { skip: noNbdcopy }, async () => {
  const large = twoLayers(4 * DISK_BYTES);
  const layers = large.blobs.map((blob) => ({
    digest: registry.addBlob(blob),
    size: blob.length,
  }));
  const { nbdUri } = await table.attach('a', await configFile('large.json', layers));
  registry.faults.push(...Array<Fault>(64).fill('silence'));
  const seen = registry.seen.length;
  const copy = spawn('nbdcopy', [nbdUri, 'null:'], { stdio: 'ignore' });
  const ended = once(copy, 'exit');
  while (registry.seen.length === seen) await sleep(5);
  const startedMs = performance.now();
  await table.detach('a');
  assert.ok(performance.now() - startedMs < 2_000);
  registry.faults.length = 0;
  copy.kill();
  await ended;
  await assertFree('a');
});

test('attach() completes a partial detach first', async () => {
  await table.attach('a', good);
  kernel.stuck.add('a');
  await assert.rejects(table.detach('a'), { code: ErrorCodes.Busy });
  await assert.rejects(table.attach('a', good), { code: ErrorCodes.Busy });
  kernel.stuck.clear();
  await table.attach('a', good);
  assert.deepEqual(kernel.attached, ['a']);
  await table.detach('a');
  await assertFree('a');
});

test('attaching and detaching one id never overlap', async () => {
  let open = () => {};
  kernel.gate = new Promise((resolve) => {
    open = resolve;
  });
  const calls = [table.attach('a', good), table.detach('a'), table.attach('a', good)];
  setTimeout(open, 20);
  await Promise.all(calls);
  assert.deepEqual(kernel.attached, ['a']);
  assert.equal(table.list().length, 1);
  await table.detach('a');
});

test('close() detaches idle devices, leaves busy ones to the next process, and refuses new ones', async () => {
  await table.attach('a', good);
  await table.attach('b', other);
  kernel.inUse.add('b');
  const kept = await table.close();
  assert.deepEqual([...kept.keys()], ['b']);
  assert.match(String(kept.get('b')), /^ObdError: Cannot detach b: it is mounted$/);
  assert.deepEqual([kernel.attached, kernel.released], [['b'], ['b']]);
  assert.deepEqual(await recordedIds(), ['b']);
  await assert.rejects(table.attach('c', good), { code: ErrorCodes.Unavailable });
  await assertFree('b');
});

test('a record exists as long as there is anything to recover', async () => {
  await table.attach('a', good);
  assert.deepEqual(await recordedIds(), ['a']);
  kernel.inUse.add('a');
  await assert.rejects(table.detach('a'), { code: ErrorCodes.Busy });
  assert.deepEqual(await recordedIds(), ['a']);
  kernel.inUse.clear();
  await table.detach('a');
  kernel.refusal = new ObdError(ErrorCodes.Io, 'Cannot attach');
  await assert.rejects(table.attach('b', good), { code: ErrorCodes.Io });
  assert.deepEqual(await recordedIds(), []);
});

test('attach() tries the next transport when the host lacks something for one', async () => {
  candidates = ['ublk', 'nbd'];
  better.refusal = new ObdError(ErrorCodes.Host, 'Cannot attach: no queue');
  assert.equal((await table.attach('a', good)).transport, 'nbd');
  assert.deepEqual(problems, ['a: transport failed, trying the next ublk nbd']);
  const [record] = await records.all(() => {});
  assert.equal(record?.transport, 'nbd');
  await table.detach('a');
  better.refusal = new ObdError(ErrorCodes.Io, 'Cannot attach: a fault');
  await assert.rejects(table.attach('a', good), { code: ErrorCodes.Io });
});

/** Starts as a daemon does after one that was killed. */
async function startAgain(): Promise<void> {
  await recoverDevices(table, records, transports, silent);
}

test('serves complete devices of an earlier process again', async () => {
  await records.put({ id: 'a', configPath: good, transport: 'nbd' });
  kernel.left.set('a', '/dev/test-a');
  await startAgain();
  const device = await table.attach('a', good);
  assert.deepEqual([device.path, device.state], ['/dev/test-a', 'attached']);
  const bytes = Buffer.alloc(DISK_BYTES);
  await readFully(kernel.disk as VirtualDisk, bytes, 0);
  assert.ok(bytes.equals(image.disk));
  await assert.rejects(table.attach('a', other), { code: ErrorCodes.AlreadyExists });
  await table.detach('a');
  assert.deepEqual([kernel.attached, await recordedIds()], [[], []]);
  await assertFree('a');
});

test('removes partial devices, unknown devices, and records without a device', async () => {
  await records.put({ id: 'half', configPath: good, transport: 'nbd' });
  await records.put({ id: 'elsewhere', configPath: good, transport: 'ublk' });
  await records.put({ id: 'nothing', configPath: good, transport: 'nbd' });
  kernel.left.set('half', undefined).set('elsewhere', '/dev/e').set('unknown', '/dev/u');
  kernel.left.set('used', '/dev/used');
  kernel.inUse.add('used');
  await writeFile(join(recordsDirectory, 'noise.json'), '{"version":1');
  await startAgain();
  assert.deepEqual([...kernel.left.keys()], ['used']);
  assert.deepEqual([table.list(), await recordedIds()], [[], []]);
  assert.match(problems.join(), /noise\.json/);
});

test('recovery clears a device whose image config is gone, unless it is in use', async () => {
  const gone = join(directory, 'gone.json');
  for (const id of ['free', 'used']) {
    await records.put({ id, configPath: gone, transport: 'nbd' });
    kernel.left.set(id, `/dev/test-${id}`);
  }
  kernel.inUse.add('used');
  await startAgain();
  assert.deepEqual([...kernel.left.keys()], ['used']);
  assert.deepEqual(
    table.list().map(({ id, state }) => [id, state]),
    [['used', 'recovering']],
  );
  assert.deepEqual(await recordedIds(), ['used']);
  await table.close();
});

test('a device that cannot be served yet is listed, attach() waits for it, and it is served later', async () => {
  await records.put({ id: 'a', configPath: good, transport: 'nbd' });
  kernel.left.set('a', '/dev/test-a');
  kernel.refusal = new ObdError(ErrorCodes.Unavailable, 'the registry is away');
  await startAgain();
  while (table.list()[0]?.problem === '') await sleep(5);
  const [shown] = table.list();
  assert.deepEqual(
    [shown?.state, shown?.path, shown?.problem],
    ['recovering', '/dev/test-a', 'the registry is away'],
  );
  const waiting = table.attach('a', good);
  kernel.refusal = undefined;
  assert.equal((await waiting).state, 'attached');
  await table.detach('a');
});

test('a device that cannot be served can be detached, unless it is in use', async () => {
  await records.put({ id: 'a', configPath: good, transport: 'nbd' });
  kernel.left.set('a', '/dev/test-a');
  kernel.refusal = new ObdError(ErrorCodes.Unavailable, 'the registry is away');
  kernel.inUse.add('a');
  await startAgain();
  await assert.rejects(table.detach('a'), { code: ErrorCodes.Busy });
  assert.equal(table.list()[0]?.state, 'recovering');
  assert.deepEqual(await recordedIds(), ['a']);
  kernel.inUse.clear();
  assert.equal(await table.detach('a'), true);
  assert.deepEqual([[...kernel.left.keys()], table.list(), await recordedIds()], [[], [], []]);
  kernel.refusal = undefined;
  await table.attach('a', good);
  await table.detach('a');
});

test('a stop leaves a device that cannot be served yet to the next process', async () => {
  await records.put({ id: 'a', configPath: good, transport: 'nbd' });
  kernel.left.set('a', '/dev/test-a');
  kernel.refusal = new ObdError(ErrorCodes.Unavailable, 'the registry is away');
  kernel.inUse.add('a');
  await startAgain();
  assert.deepEqual([...(await table.close()).keys()], ['a']);
  assert.deepEqual([[...kernel.left.keys()], await recordedIds()], [['a'], ['a']]);
});

test('attach() refuses invalid ids and relative paths', async () => {
  for (const id of ['', '.', '..', '.a', 'a/b', 'ä', 'a b', 'x'.repeat(65), 'a\n']) {
    await assert.rejects(table.attach(id, good), { code: ErrorCodes.InvalidArgument }, id);
  }
  await assert.rejects(table.attach('a', 'good.json'), { code: ErrorCodes.InvalidArgument });
  await table.attach('x'.repeat(64), good);
  await table.detach('x'.repeat(64));
});

test('attach() and detach() through a kernel transport', { skip: unfit }, async () => {
  const devices = join(directory, 'devices');
  candidates = ['fuse'];
  const real = tableOver(makeTransports(nbdSocketPath, devices));
  const { path } = await real.attach('real', good);
  try {
    // In a separate process: this one answers the reads.
    const read = contentOf(path);
    assert.ok((await read).equals(image.disk));
  } finally {
    await real.detach('real');
  }
  assert.deepEqual(await readdir(join(devices, 'fuse')), []);
});

function contentOf(device: string): Promise<Buffer> {
  const options = { encoding: 'buffer', maxBuffer: 2 * DISK_BYTES } as const;
  return new Promise((resolve, reject) => {
    execFile('cat', [device], options, (error, stdout) => {
      if (error === null) resolve(stdout);
      else reject(error);
    });
  });
}

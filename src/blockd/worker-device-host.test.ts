/**
 * Goal: devices on other threads read exactly their images despite failures of cache, registry and clients; a waiting
 * device delays no other; attached devices can be detached; the death of a thread is reported.
 * Method: real threads, a loopback registry that misbehaves, the fuse transport, which needs no driver, and libnbd's and
 * fio's clients over several connections.
 */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { openSync, readdirSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pino from 'pino';
import { type BlockImage, twoLayers } from '../../test/support/block-image.js';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { DeviceFailure } from '../blockdev/transport.js';
import { makeTransports } from '../blockdev/transports.js';
import { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import { writeImageConfig } from '../image/image-config.js';
import { IndexBudget } from '../io/index-budget.js';
import { KeptOrders } from '../load-order/kept-orders.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { BackgroundFill } from './background-fill.js';
import { DemandWatch } from './demand-watch.js';
import type { HostedDevice } from './device-host.js';
import { ExpectedStarts } from './expected-starts.js';
import { HotImages } from './hot-images.js';
import { OrderPublisher } from './order-publisher.js';
import { Recordings } from './recordings.js';
import type { ReplayResult } from './replay.js';
import type { RequestNote } from './request-notes.js';
import { StartAdvices } from './start-advice.js';
import type { Handlers } from './thread-calls.js';
import { WorkerDeviceHost } from './worker-device-host.js';
import type { MainCalls } from './worker-messages.js';
import { DEVICE_PROGRAM, WorkerPool } from './worker-pool.js';

const run = promisify(execFile);
const DISK_BYTES = 4 << 20;

const directory = await mkdtemp('/var/tmp/obd-workers.');
after(async () => await rm(directory, { recursive: true }));
const nbdSocketPath = join(directory, 'nbd.sock');
const missing = await makeTransports(nbdSocketPath, directory).fuse.unavailableReason();
const noClient = spawnSync('nbdcopy', ['--version']).error && 'nbdcopy is not installed';
const unfit = (missing && `fuse cannot be used: ${missing}`) ?? noClient ?? false;
const fioEngines = spawnSync('fio', ['--enghelp'], { encoding: 'utf8' }).stdout ?? '';
const noFio = /\bnbd\b/.test(fioEngines) ? false : 'fio has no nbd engine here';

/** A daemon without its control API. */
class Scene {
  readonly directory: string;
  readonly registry: LoopbackRegistry;
  readonly client: RegistryClient;
  readonly cache: BlockCache;
  readonly nbd: NbdServer;
  readonly host: WorkerDeviceHost;
  readonly fill: BackgroundFill;
  readonly faults: ObdError[];
  readonly failures: DeviceFailure[] = [];
  readonly notes: RequestNote[] = [];
  readonly logged: Record<string, unknown>[] = [];
  readonly replays: ReplayResult[] = [];
  readonly replayFailures: unknown[] = [];
  readonly deaths: Error[] = [];
  readonly unchecked: number[] = [];
  readonly #devices: HostedDevice[] = [];

  private constructor(
    own: string,
    registry: LoopbackRegistry,
    client: RegistryClient,
    cache: BlockCache,
    nbd: NbdServer,
    faults: ObdError[],
  ) {
    this.directory = own;
    this.registry = registry;
    this.client = client;
    this.cache = cache;
    this.nbd = nbd;
    this.faults = faults;
    const demand = new DemandWatch();
    this.fill = new BackgroundFill(cache, demand, undefined, { info: () => {}, warn: () => {} });
    const log = pino({}, { write: (line) => this.logged.push(JSON.parse(line)) });
    const orders = join(own, 'orders');
    const kept = new KeptOrders(orders);
    const advices = new StartAdvices(client, kept);
    const hotImages = new HotImages(cache, client);
    const starts = new ExpectedStarts({ cache, client, hotImages, advices, isUsed: true, log });
    const publisher = new OrderPublisher({
      client,
      advices,
      kept,
      directory: orders,
      publishes: false,
      log,
    });
    this.host = new WorkerDeviceHost({
      program: DEVICE_PROGRAM,
      demand,
      fill: this.fill,
      fillImages: { isEnabled: false, delayMs: 0, idleMs: 0 },
      cache,
      client,
      nbd,
      nbdSocketPath,
      directory: join(own, 'devices'),
      readDeadlineMs: 3_000,
      onDeviceDeath: assert.fail,
      indexBytes: 512 * 2 ** 20,
      onReadError: (failure) => this.failures.push(failure),
      onRequest: (_id, note) => this.notes.push(note),
      starts,
      recordings: new Recordings(starts, publisher),
      onRecorded: (start, order, writeHot) => publisher.recorded(start, order, writeHot),
      onPagesRead: () => {},
      onReplay: (_id, result) => this.replays.push(result),
      onReplayFailure: (_id, error) => this.replayFailures.push(error),
      onDeath: (error) => this.deaths.push(error),
      onUnchecked: (_id, layers) => this.unchecked.push(layers),
      onUnloadable: (error) => this.deaths.push(error),
    });
  }

  static async make({ capacityBytes = 1 << 30, fetchDeadlineMs = 30_000 } = {}): Promise<Scene> {
    const own = await mkdtemp(join(directory, 'scene.'));
    const registry = await LoopbackRegistry.start();
    const client = new RegistryClient({
      hosts: new RegistryHosts([]),
      credentials: { label: 'none', find: async () => undefined },
      limits: { ...DEFAULT_LIMITS, backoffMs: 1, attemptsMax: 2, fetchDeadlineMs },
    });
    const faults: ObdError[] = [];
    const report = (fault: ObdError) => faults.push(fault);
    const cache = await BlockCache.open(join(own, 'cache'), {
      capacityBytes,
      reserveBytes: 0,
      report,
    });
    const nbd = await NbdServer.listen(nbdSocketPath);
    return new Scene(own, registry, client, cache, nbd, faults);
  }

  async attach(id: string, config: string): Promise<HostedDevice> {
    const device = await this.host.attach(id, config, 'fuse');
    this.#devices.push(device);
    return device;
  }

  /** Also takes away what a failed test has left. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#devices.map((device) => device.detach()));
    await this.client.close();
    await this.nbd.close();
    await this.host.close();
    await this.cache.close();
    await this.registry.close();
  }

  async configOf(name: string, image: BlockImage): Promise<string> {
    const path = join(this.directory, `${name}.json`);
    const lowers = image.blobs.map((blob) => {
      return { digest: this.registry.addBlob(blob), size: blob.length };
    });
    const repoBlobUrl = `http://${this.registry.host}/v2/x/${name}/blobs`;
    const rest = { upper: {}, resultFile: '', accelerationLayer: false };
    await writeImageConfig(path, { repoBlobUrl, lowers, ...rest });
    return path;
  }
}

const uriOf = (id: string) => `nbd+unix:///${id}?socket=${nbdSocketPath}`;

async function copyOf(id: string): Promise<Buffer> {
  const path = join(directory, `copy-of-${id}-${randomUUID()}`);
  await run('nbdcopy', ['--connections=4', uriOf(id), path]);
  const bytes = await readFile(path);
  await rm(path);
  return bytes;
}

async function assertCopies(id: string, { disk }: BlockImage): Promise<void> {
  assert.ok((await copyOf(id)).equals(disk), `${id} is not its image`);
}

/** Overwrites the first blob's stored bytes, past what opening reads. */
function damageCache(scene: Scene): void {
  const folder = join(scene.directory, 'cache');
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).size > DISK_BYTES / 8);
  assert.ok(files.length > 0);
  for (const path of files)
    writeSync(openSync(path, 'r+'), Buffer.alloc(512, 0xee), 0, 512, 70_000);
}

describe('WorkerDeviceHost', { skip: unfit, timeout: 180_000 }, () => {
  let scene: Scene;
  beforeEach(async () => {
    scene = await Scene.make();
  });
  afterEach(async () => await scene.close());

  test('several devices read at once, each its own image, and can be attached again', async () => {
    const images = [twoLayers(DISK_BYTES), twoLayers(DISK_BYTES / 2), twoLayers(DISK_BYTES * 2)];
    const devices = await Promise.all(
      images.map(async (image, i) => {
        return await scene.attach(`d${i}`, await scene.configOf(`i${i}`, image));
      }),
    );
    await Promise.all(images.flatMap((image, i) => [1, 2].map(() => assertCopies(`d${i}`, image))));
    for (const [i, device] of devices.entries()) {
      const block = await readFile(device.path);
      assert.ok(block.equals(images[i]!.disk), 'the device is not its image');
      const state = device.state();
      assert.deepEqual([state.sizeBytes, state.layers], [images[i]!.disk.length, 2]);
      assert.equal(
        state.remoteBytes,
        images[i]!.blobs.reduce((sum, b) => sum + b.length, 0),
      );
      assert.ok(state.fetchedBytes > 0 && state.fetchRequests > 0 && state.readErrors === 0);
      assert.ok(state.cachedBytes > 0 && state.cachedBytes <= state.remoteBytes);
    }
    await Promise.all(devices.map((device) => device.detach()));
    await devices[0]!.detach();
    await assert.rejects(copyOf('d0'));
    const again = await scene.attach('d0', await scene.configOf('i0', images[0]!));
    await assertCopies('d0', images[0]!);
    await again.detach();
    assert.deepEqual([scene.faults, scene.failures, scene.deaths], [[], [], []]);
    assert.deepEqual(scene.unchecked, []);
  });

  test('observe() notifies of each read, hit or loaded, until it is turned off', async () => {
    const image = twoLayers(DISK_BYTES);
    const device = await scene.attach('d', await scene.configOf('i', image));
    await assertCopies('d', image);
    assert.equal(scene.notes.length, 0);
    scene.host.observe(true);
    await assertCopies('d', image);
    const other = twoLayers(DISK_BYTES / 2);
    const second = await scene.attach('e', await scene.configOf('j', other));
    await assertCopies('e', other);
    const stories = new Set(scene.notes.map(({ answer }) => answer?.from ?? 'waits'));
    assert.deepEqual([...stories].sort(), ['hit', 'loaded', 'waits']);
    for (const { request, offset, length } of scene.notes) {
      assert.equal(request, 'read');
      assert.ok(offset >= 0 && length > 0 && offset + length <= DISK_BYTES);
    }
    scene.host.observe(false);
    await second.detach();
    const before = scene.notes.length;
    await assertCopies('d', image);
    assert.equal(scene.notes.length, before);
    await device.detach();
  });

  /** A load order is written after its device is gone. */
  async function keptOrders(): Promise<string[]> {
    for (;;) {
      const names = await readdir(join(scene.directory, 'orders')).catch(() => []);
      const kept = names.filter((name) => name.endsWith('.json'));
      if (kept.length > 0) return kept;
      await sleep(10);
    }
  }

  async function replayed(): Promise<Record<string, unknown>> {
    for (;;) {
      const found = scene.logged.find(({ msg }) => msg === 'load order replayed');
      if (found !== undefined) return found;
      await sleep(10);
    }
  }

  test('a start is recorded, and the next one is fetched ahead of its reads', async () => {
    const image = twoLayers(DISK_BYTES);
    const config = await scene.configOf('i', image);
    const first = await scene.attach('d', config);
    const parts = [1 << 20, 3 << 20, 98_304];
    const readParts = async (path: string) => {
      const file = await open(path);
      for (const at of parts) {
        const { buffer } = await file.read(Buffer.alloc(8192), 0, 8192, at);
        assert.ok(buffer.equals(image.disk.subarray(at, at + buffer.length)));
      }
      await file.close();
    };
    await readParts(first.path);
    await first.detach();
    assert.deepEqual(scene.logged, [], 'nothing was known of the first start');
    await keptOrders();
    await scene.cache.prune();

    const second = await scene.attach('d', config);
    const { from, ended, fetchedBytes } = await replayed();
    assert.deepEqual([from, ended], ['host', 'complete']);
    assert.ok(Number(fetchedBytes) > 0);
    const { fetchRequests } = second.state();
    await readParts(second.path);
    assert.equal(second.state().fetchRequests, fetchRequests, 'all of it was here');
    await second.detach();
    assert.equal(scene.logged.length, 1);
  });

  test('a damaged load order of an earlier start is replaced, and the image read right', async () => {
    const image = twoLayers(DISK_BYTES);
    const config = await scene.configOf('i', image);
    await (await scene.attach('d', config)).detach();
    const [name] = await keptOrders();
    const path = join(scene.directory, 'orders', name!);
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(1 << 20)]));
    await scene.cache.prune();
    const device = await scene.attach('d', config);
    await assertCopies('d', image);
    await device.detach();
    await keptOrders();
    assert.ok(!scene.logged.some(({ msg }) => msg === 'load order replayed'));
    await scene.cache.prune();
    const third = await scene.attach('d', config);
    await replayed();
    await third.detach();
  });

  test('fio reads over several connections', { skip: noFio }, async () => {
    const device = await scene.attach('d', await scene.configOf('i', twoLayers(DISK_BYTES)));
    const job = ['--name=j', '--ioengine=nbd', `--uri=${uriOf('d')}`, '--rw=randread', '--bs=4k'];
    await run('fio', [...job, '--numjobs=4', '--iodepth=8', `--size=${DISK_BYTES}`]);
    assert.equal(device.state().readErrors, 0);
    await device.detach();
  });

  test('a worker detects damage in the cache, fetches again and reports it', async () => {
    const image = twoLayers(DISK_BYTES);
    const device = await scene.attach('d', await scene.configOf('i', image));
    await assertCopies('d', image);
    const { fetchRequests } = device.state();
    damageCache(scene);
    await assertCopies('d', image);
    assert.ok(device.state().fetchRequests > fetchRequests);
    assert.ok(scene.faults.length > 0);
    assert.ok(scene.faults.every((fault) => hasCode(fault, ErrorCodes.Corrupt)));
    assert.deepEqual(scene.failures, []);
    await device.detach();
  });

  test('reads of uncached bytes fail with EIO when the registry is gone, and are reported', async () => {
    await scene.close();
    scene = await Scene.make({ fetchDeadlineMs: 2000 });
    const image = twoLayers(DISK_BYTES);
    const device = await scene.attach('d', await scene.configOf('i', image));
    scene.registry.faults.push(...Array.from({ length: 1000 }, () => 'reset' as const));
    await assert.rejects(copyOf('d'));
    const [failure = assert.fail('no failure was told')] = scene.failures;
    assert.equal(failure.id, 'd');
    assert.ok(hasCode(failure.error, ErrorCodes.Unavailable));
    assert.ok(device.state().readErrors > 0);
    scene.registry.faults.length = 0;
    // The pause before the next attempt may be longer than this scene's read deadline.
    while (
      await copyOf('d').then(
        () => false,
        () => true,
      )
    )
      await sleep(100);
    await assertCopies('d', image);
    await device.detach();
  });

  test('a device whose registry hangs delays no other, and can be detached', async () => {
    const [slow, quick] = [twoLayers(DISK_BYTES), twoLayers(DISK_BYTES / 2)];
    const devices = [
      await scene.attach('quick', await scene.configOf('quick', quick)),
      await scene.attach('other', await scene.configOf('other', quick)),
      await scene.attach('slow', await scene.configOf('slow', slow)),
    ];
    await assertCopies('quick', quick);
    scene.registry.faults.push(...Array.from({ length: 1000 }, () => 'silence' as const));
    const stuck = assert.rejects(copyOf('slow'));
    await sleep(100);
    const started = performance.now();
    await assertCopies('quick', quick);
    await assertCopies('other', quick);
    assert.ok(performance.now() - started < 5_000);
    await Promise.all(devices.map((device) => device.detach()));
    await stuck;
  });

  test('a failed open reports its reason and leaves nothing', async () => {
    const image = twoLayers(DISK_BYTES);
    const good = await scene.configOf('good', image);
    const bad = { disk: image.disk, blobs: [image.blobs[0]!.subarray(0, 100_000)] };
    const broken = await scene.configOf('bad', bad);
    await assert.rejects(scene.attach('d', broken), (error) => {
      return error instanceof ObdError && /Cannot open layer 1 of 1/.test(error.message);
    });
    await assert.rejects(scene.host.resume('d', good, 'fuse'), { code: ErrorCodes.NotFound });
    const device = await scene.attach('d', good);
    await assert.rejects(scene.attach('d', good), { code: ErrorCodes.AlreadyExists });
    await assertCopies('d', image);
    await device.detach();
  });

  test('a device that was released is resumed', async () => {
    const image = twoLayers(DISK_BYTES);
    const config = await scene.configOf('i', image);
    const before = await scene.attach('d', config);
    await before.release();
    const resumed = await scene.host.resume('d', config, 'fuse');
    assert.equal(resumed.path, before.path);
    assert.ok((await readFile(resumed.path)).equals(image.disk));
    await resumed.detach();
  });
});

test('without room in the cache every read is still answered', { skip: unfit }, async () => {
  const scene = await Scene.make({ capacityBytes: 0 });
  const image = twoLayers(DISK_BYTES);
  const device = await scene.attach('d', await scene.configOf('i', image));
  await assertCopies('d', image);
  assert.equal(device.state().cachedBytes, 0);
  assert.ok(scene.faults.every((fault) => hasCode(fault, ErrorCodes.NoSpace)));
  await device.detach();
  await scene.close();
});

test('a worker that dies of a bug is reported, and its calls fail', async () => {
  let died: (error: Error) => void = () => {};
  const death = new Promise<Error>((resolve) => {
    died = resolve;
  });
  const pool = new WorkerPool({
    program: DEVICE_PROGRAM,
    settings: {
      nbdSocketPath,
      directory,
      readDeadlineMs: 3_000,
    },
    handlers: () => ({}) as Handlers<MainCalls>,
    onDeath: (error) => died(error),
    onUnloadable: assert.fail,
  });
  const { calls } = await pool.acquire();
  const waiting = assert.rejects(
    calls.call('open', {
      id: 'd',
      configPath: '/dev/fd/9',
      isStart: true,
      memory: new IndexBudget(1 << 29).account(false).shared,
    }),
  );
  calls.notify('nonsense' as 'close', { id: 'd' });
  assert.ok((await death) instanceof TypeError);
  await waiting;
  await assert.rejects(calls.call('close', { id: 'd' }), { code: ErrorCodes.Unavailable });
  await pool.close();
});

test('a thread is started for each device, up to one per core', async () => {
  const pool = new WorkerPool({
    program: DEVICE_PROGRAM,
    settings: {
      nbdSocketPath,
      directory,
      readDeadlineMs: 3_000,
    },
    handlers: () => ({}) as Handlers<MainCalls>,
    onDeath: assert.fail,
    onUnloadable: assert.fail,
  });
  const most = Math.min(8, availableParallelism());
  const workers = await Promise.all(Array.from({ length: 2 * most }, () => pool.acquire()));
  assert.equal(new Set(workers).size, most);
  assert.deepEqual(new Set(workers.map(({ devices }) => devices)), new Set([2]));
  for (const worker of workers) pool.release(worker);
  assert.equal(await pool.acquire(), workers[0]);
  await pool.close();
});

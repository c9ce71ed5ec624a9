/**
 * Goal: the table keeps its three promises (once however often, never overlapping, in use means unchanged), and what fails
 * leaves nothing behind.
 * Method: real images from a loopback registry through cache, layers and NBD server; in place of the kernel a transport
 * that can be held up and refused, and once the real one.
 */
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { twoLayers } from '../../test/support/block-image.js';
import { type Fault, LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { FuseTransport } from '../blockdev/fuse/fuse-transport.js';
import { NbdServer } from '../blockdev/nbd/nbd-server.js';
import type { AttachedDevice, Transport } from '../blockdev/transport.js';
import type { VirtualDisk } from '../blockdev/virtual-disk.js';
import { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { readImageConfig, writeImageConfig } from '../image/image-config.js';
import { openImage } from '../image/open-image.js';
import { readFully } from '../io/random-access-file.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { BUDGET_BYTES_MIN, DecodedBlocks } from '../zfile/decoded-blocks.js';
import { DeviceTable } from './device-table.js';

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
const cache = await BlockCache.open(join(directory, 'cache'), { capacityBytes: 1 << 30 });
const nbd = await NbdServer.listen(nbdSocketPath);
const decoded = new DecodedBlocks(BUDGET_BYTES_MIN);
after(async () => {
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

/** The kernel, as far as the table sees it. */
class TestTransport implements Transport {
  readonly name = 'test';
  readonly attached: string[] = [];
  readonly inUse = new Set<string>();
  /** What detaching gives back the node of, and then fails at. */
  readonly stuck = new Set<string>();
  refusal: Error | undefined;
  /** attach() and detach() wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly #working = new Set<string>();
  disk: VirtualDisk | undefined;

  async attach(id: string, disk: VirtualDisk): Promise<AttachedDevice> {
    await this.#work(id);
    if (this.refusal !== undefined) throw this.refusal;
    this.attached.push(id);
    this.disk = disk;
    const isAttached = () => this.attached.includes(id);
    return {
      path: `/dev/test-${id}`,
      get isGone() {
        return !isAttached();
      },
      detach: () => this.#detach(id),
    };
  }

  async #detach(id: string): Promise<void> {
    await this.#work(id);
    if (this.inUse.has(id))
      throw new ObdError(ErrorCodes.Busy, `Cannot detach ${id}: it is mounted`);
    if (this.attached.includes(id)) this.attached.splice(this.attached.indexOf(id), 1);
    if (this.stuck.has(id)) throw new ObdError(ErrorCodes.Busy, `Cannot free what ${id} used`);
  }

  /** Of one id, one at a time. */
  async #work(id: string): Promise<void> {
    assert.ok(!this.#working.has(id), `two at a time on ${id}`);
    this.#working.add(id);
    await this.gate;
    this.#working.delete(id);
  }
}

let kernel: TestTransport;
let table: DeviceTable;

function tableOver(transport: Transport): DeviceTable {
  return new DeviceTable({
    openImage: async (path) =>
      await openImage(await readImageConfig(path), { cache, client, decoded }),
    nbd,
    nbdSocketPath,
    transport,
  });
}

beforeEach(() => {
  kernel = new TestTransport();
  table = tableOver(kernel);
});

/** Nothing of the id is left: the name is free for another export. */
async function assertFree(id: string): Promise<void> {
  await nbd.addExport(id, kernel.disk as VirtualDisk).remove();
}

test('a device is the image, with its figures', async () => {
  const device = await table.attach('a', good);
  assert.deepEqual(
    { ...device, cachedBytes: 0, fetchedBytes: 0, fetchRequests: 0 },
    {
      id: 'a',
      configPath: good,
      path: '/dev/test-a',
      transport: 'test',
      sizeBytes: DISK_BYTES,
      layers: 2,
      remoteBytes: image.blobs.reduce((sum, { length }) => sum + length, 0),
      cachedBytes: 0,
      fetchedBytes: 0,
      fetchRequests: 0,
      readErrors: 0,
      nbdUri: `nbd+unix:///a?socket=${encodeURIComponent(nbdSocketPath)}`,
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

test('attached once, however often it is asked for and by however many', async () => {
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

test('a failure is everybody’s, and the next attempt starts afresh', async () => {
  kernel.refusal = new ObdError(ErrorCodes.Host, 'Cannot attach: no FUSE');
  const attempts = await Promise.allSettled([table.attach('a', good), table.attach('a', good)]);
  for (const attempt of attempts) {
    assert.equal(attempt.status, 'rejected');
    assert.equal((attempt as PromiseRejectedResult).reason, kernel.refusal);
  }
  assert.deepEqual(table.list(), []);
  kernel.refusal = undefined;
  await table.attach('a', good);
  await table.detach('a');
  await assertFree('a');
});

test('an image that cannot be opened leaves nothing', async () => {
  await assert.rejects(table.attach('a', broken), { code: ErrorCodes.NotFound });
  await assert.rejects(table.attach('a', join(directory, 'none.json')), {
    code: ErrorCodes.NotFound,
  });
  assert.deepEqual([kernel.attached, table.list()], [[], []]);
  await table.attach('a', good);
  await table.detach('a');
});

test('a device in use stays as it was', async () => {
  await table.attach('a', good);
  kernel.inUse.add('a');
  await assert.rejects(table.detach('a'), { code: ErrorCodes.Busy });
  assert.equal((await table.attach('a', good)).path, '/dev/test-a');
  await readFully(kernel.disk as VirtualDisk, Buffer.alloc(4096), 0);
  kernel.inUse.clear();
  await table.detach('a');
  await assertFree('a');
});

test('a client that waits for a registry holds up no detaching', { skip: noNbdcopy }, async () => {
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

test('a device that was detached in part is given to nobody', async () => {
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

test('closing takes away what is free, names what is not, and refuses more', async () => {
  await table.attach('a', good);
  await table.attach('b', other);
  kernel.inUse.add('b');
  const left = await table.close();
  assert.match(left.map(String).join(), /^ObdError: Cannot detach b: it is mounted$/);
  assert.deepEqual(kernel.attached, ['b']);
  await assert.rejects(table.attach('c', good), { code: ErrorCodes.Unavailable });
  kernel.inUse.clear();
  assert.deepEqual(await table.close(), []);
  assert.deepEqual(kernel.attached, []);
});

test('ids and paths that make no sense', async () => {
  for (const id of ['', '.', '..', '.a', 'a/b', 'ä', 'a b', 'x'.repeat(65), 'a\n']) {
    await assert.rejects(table.attach(id, good), { code: ErrorCodes.InvalidArgument }, id);
  }
  await assert.rejects(table.attach('a', 'good.json'), { code: ErrorCodes.InvalidArgument });
  await table.attach('x'.repeat(64), good);
  await table.detach('x'.repeat(64));
});

test('through the kernel', { skip: unfit }, async () => {
  const devices = join(directory, 'devices');
  const real = tableOver(new FuseTransport(nbd, nbdSocketPath, devices));
  const { path } = await real.attach('real', good);
  try {
    // In a process of its own: this one answers the reads.
    const read = contentOf(path);
    assert.ok((await read).equals(image.disk));
  } finally {
    await real.detach('real');
  }
  assert.deepEqual(await readdir(devices), []);
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

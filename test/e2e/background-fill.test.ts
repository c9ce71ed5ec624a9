/**
 * Goal: with the background fill on, an attached image becomes complete in the cache and needs its registry no longer. The
 * fill yields to reads, keeps the budget, survives outages, kills and detaches; an image's config turns it on or off.
 * Method: the real daemon, a loopback registry that notes requests and fails on demand, devices of this kernel read by dd.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Device } from '../../src/blockd/blockd-client.js';
import { layerOf } from '../support/block-image.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { type Fault, LoopbackRegistry } from '../support/loopback-registry.js';
import { pagesOf } from '../support/virtual-disks.js';

const run = promisify(execFile);
const DISK_BYTES = 16 << 20;
const PAGE_BYTES = 4096;
const FILL = '[fill]\nenabled = true\ndelay = "0 s"\nidle = "0 s"\n';
const UNAVAILABLE: Fault = { status: 503 };
const WAIT_MS_MAX = 30_000;

let registry: LoopbackRegistry;
const disk = pagesOf(DISK_BYTES);
const blob = layerOf(disk, () => true);

async function withDaemon(
  config: string,
  body: (daemon: BlockdProcess) => Promise<void>,
): Promise<void> {
  const daemon = await BlockdProcess.start(config);
  try {
    await body(daemon);
  } catch (error) {
    await daemon.end('SIGTERM');
    throw error;
  }
  await daemon.stop();
}

/** @param more - Further keys of the image config. */
function configIn(daemon: BlockdProcess, more: object = {}): string {
  const lowers = [{ digest: registry.addBlob(blob), size: blob.length }];
  const path = join(daemon.directory, 'image.json');
  const repoBlobUrl = `http://${registry.host}/v2/x/y/blobs`;
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers, ...more }));
  return path;
}

async function device(daemon: BlockdProcess): Promise<Device> {
  const [found] = await daemon.client.list();
  assert.ok(found !== undefined);
  return found;
}

async function reaches(daemon: BlockdProcess, state: string): Promise<Device> {
  const deadline = Date.now() + WAIT_MS_MAX;
  for (;;) {
    const found = await device(daemon);
    if (found.fillState === state) return found;
    const { fillState, fillProblem } = found;
    assert.ok(Date.now() < deadline, `it is ${fillState} (${fillProblem}), not ${state}`);
    await sleep(20);
  }
}

async function read(path: string, offset: number, length: number): Promise<Buffer> {
  const range = [`skip=${offset / PAGE_BYTES}`, `count=${length / PAGE_BYTES}`];
  const args = [`if=${path}`, `bs=${PAGE_BYTES}`, 'iflag=direct', 'status=none', ...range];
  const { stdout } = await run('dd', args, { encoding: 'buffer', maxBuffer: 2 * DISK_BYTES });
  return stdout;
}

async function assertReads(path: string): Promise<void> {
  assert.ok((await read(path, 0, DISK_BYTES)).equals(disk), 'other bytes than the image has');
}

/** Bytes of the blob in all requests. */
function requestedBytes(): number {
  return registry.seen.reduce((sum, { range }) => {
    const [, first, last] = /^bytes=([0-9]+)-([0-9]+)$/.exec(range ?? '') ?? [];
    return last === undefined ? sum : sum + Number(last) - Number(first) + 1;
  }, 0);
}

/** The fill's, when reads are of the second half. */
function requestsOfFirstHalf(): number {
  const firsts = registry.seen.map(({ range }) => Number(/[0-9]+/.exec(range ?? '')?.[0]));
  return firsts.filter((first) => first < blob.length / 2).length;
}

describe('the background fill', { skip: blockdUnfit, timeout: 300_000 }, () => {
  beforeEach(async () => {
    registry = await LoopbackRegistry.start();
  });
  afterEach(async () => await registry.close());

  test('completes an attached image, which then needs no registry', async () => {
    await withDaemon(FILL, async (daemon) => {
      const { path } = await daemon.client.attach('d', configIn(daemon));
      const { cachedBytes, remoteBytes, fillProblem } = await reaches(daemon, 'complete');
      assert.deepEqual([cachedBytes, fillProblem], [remoteBytes, '']);
      // The first megabyte may be read and filled at once.
      assert.ok(requestedBytes() <= blob.length + (1 << 20), `${requestedBytes()} bytes`);
      await registry.close();
      await assertReads(path);
      await daemon.client.detach('d');
      await daemon.logged(({ id, msg }) => id === 'd' && /complete in the cache/.test(msg));
    });
  });

  test('is off by default, and on for an image whose config says so', async () => {
    await withDaemon('[fill]\ndelay = "0 s"\n', async (daemon) => {
      await daemon.client.attach('off', configIn(daemon));
      await sleep(1_000);
      const { fillState, cachedBytes, remoteBytes } = await device(daemon);
      assert.equal(fillState, '');
      assert.ok(cachedBytes < remoteBytes / 2);
      await daemon.client.detach('off');
      await daemon.client.attach('on', configIn(daemon, { download: { enable: true } }));
      await reaches(daemon, 'complete');
      await daemon.client.detach('on');
    });
  });

  test('waits for its delay, and is off for an image whose config says so', async () => {
    await withDaemon('[fill]\nenabled = true\ndelay = "1 h"\n', async (daemon) => {
      await daemon.client.attach('waits', configIn(daemon));
      assert.equal((await device(daemon)).fillState, 'waiting');
      await daemon.client.detach('waits');
      await daemon.client.attach('off', configIn(daemon, { download: { enable: false } }));
      assert.equal((await device(daemon)).fillState, '');
      await daemon.client.detach('off');
    });
  });

  test('requests nothing while a read waits, and continues afterwards', async () => {
    await withDaemon(`${FILL}rate = "2 MiB"\n`, async (daemon) => {
      const { path } = await daemon.client.attach('d', configIn(daemon));
      await reaches(daemon, 'filling');
      registry.faults.push(...Array.from({ length: 10_000 }, () => UNAVAILABLE));
      const at = DISK_BYTES - (1 << 20);
      const reading = read(path, at, PAGE_BYTES);
      const deadline = Date.now() + WAIT_MS_MAX;
      while ((await device(daemon)).waitingReads === 0) {
        assert.ok(Date.now() < deadline, 'no read waits');
        await sleep(20);
      }
      // The range that was in flight ends.
      await sleep(1_000);
      const before = requestsOfFirstHalf();
      await sleep(2_000);
      assert.equal(requestsOfFirstHalf(), before, 'requests of the fill while a read waits');
      registry.faults.splice(0);
      assert.ok((await reading).equals(disk.subarray(at, at + PAGE_BYTES)));
      await reaches(daemon, 'complete');
      await daemon.client.detach('d');
    });
  });

  test('stops when the cache is full, and evicts nothing that is in use', async () => {
    await withDaemon(`cache_size = "4 MiB"\n${FILL}`, async (daemon) => {
      const { path } = await daemon.client.attach('d', configIn(daemon));
      const full = await reaches(daemon, 'full');
      assert.match(full.fillProblem, /cache_size/);
      assert.ok(full.cachedBytes <= 4 << 20 && full.cachedBytes > 2 << 20, `${full.cachedBytes}`);
      // The range that was in flight ends.
      await sleep(1_000);
      const before = requestedBytes();
      await sleep(1_000);
      assert.equal(requestedBytes(), before);
      await assertReads(path);
      await daemon.client.detach('d');
    });
  });

  test('pauses while the registry is unavailable, and completes when it is back', async () => {
    await withDaemon(`${FILL}rate = "8 MiB"\n`, async (daemon) => {
      await daemon.client.attach('d', configIn(daemon));
      await reaches(daemon, 'filling');
      registry.faults.push(...Array.from({ length: 10_000 }, () => UNAVAILABLE));
      const { fillProblem } = await reaches(daemon, 'failing');
      assert.match(fillProblem, /in the background|503/);
      registry.faults.splice(0);
      await reaches(daemon, 'complete');
      assert.equal(daemon.log().filter(({ msg }) => /fill failed/.test(msg)).length, 1);
      await daemon.client.detach('d');
    });
  });

  test('continues in the next daemon after a kill', async () => {
    await withDaemon(`${FILL}rate = "4 MiB"\n`, async (daemon) => {
      const { path } = await daemon.client.attach('d', configIn(daemon));
      while ((await device(daemon)).cachedBytes < blob.length / 2) await sleep(50);
      // The cache saves its state once a second.
      await sleep(1_500);
      await daemon.end('SIGKILL');
      const before = requestedBytes();
      await daemon.restart();
      await reaches(daemon, 'complete');
      assert.ok(requestedBytes() - before < blob.length * 0.7, `${requestedBytes() - before}`);
      await assertReads(path);
      await daemon.client.detach('d');
    });
  });

  test('ends when the device is detached', async () => {
    await withDaemon(`${FILL}rate = "1 MiB"\n`, async (daemon) => {
      await daemon.client.attach('d', configIn(daemon));
      await reaches(daemon, 'filling');
      await daemon.client.detach('d');
      const before = registry.seen.length;
      await sleep(1_500);
      assert.equal(registry.seen.length, before);
    });
  });
});

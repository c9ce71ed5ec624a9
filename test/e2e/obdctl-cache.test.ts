/**
 * Goal: `obdctl prefetch` brings a whole image into the cache, so that it is attached and read without its registry;
 * `obdctl cache` lists, measures and prunes what is there, and leaves what a device uses.
 * Method: the real daemon and command, a loopback registry, devices of this kernel.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { layerOf } from '../support/block-image.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { obdctl } from '../support/run-obdctl.js';
import { pagesOf } from '../support/virtual-disks.js';

const DISK_BYTES = 8 << 20;
const disk = pagesOf(DISK_BYTES);
const blob = layerOf(disk, () => true);

let registry: LoopbackRegistry;

async function withDaemon(
  config: string,
  body: (daemon: BlockdProcess, run: (...args: string[]) => Promise<string>) => Promise<void>,
): Promise<void> {
  const daemon = await BlockdProcess.start(config);
  const run = async (...args: string[]) => {
    const { status, stdout, stderr } = await obdctl(...args, '--blockd', daemon.socket);
    assert.equal(status, 0, stderr);
    return stdout;
  };
  try {
    await body(daemon, run);
  } catch (error) {
    await daemon.end('SIGTERM');
    throw error;
  }
  await daemon.stop();
}

function configIn(daemon: BlockdProcess): string {
  const path = join(daemon.directory, 'image.json');
  const repoBlobUrl = `http://${registry.host}/v2/x/y/blobs`;
  const lowers = [{ digest: registry.addBlob(blob), size: blob.length }];
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers }));
  return path;
}

interface Usage {
  readonly blobs: number;
  readonly inUseBytes: number;
  readonly unusedBytes: number;
  readonly capacityBytes: number;
}

describe('obdctl', { skip: blockdUnfit, timeout: 120_000 }, () => {
  beforeEach(async () => {
    registry = await LoopbackRegistry.start();
  });
  afterEach(async () => await registry.close());

  test('prefetch --wait brings an image that is then read without its registry', async () => {
    await withDaemon('', async (daemon, run) => {
      const config = configIn(daemon);
      assert.match(await run('prefetch', '--wait', config), /image\.json: complete, .* of .*\n$/);
      assert.match(await run('devices'), /prefetch of .*image\.json: 100\.0 % of .*, complete/);
      await registry.close();
      const { path } = await daemon.client.attach('d', config);
      const options = { maxBuffer: 2 * DISK_BYTES };
      const found = execFileSync(
        'dd',
        [`if=${path}`, 'bs=1M', 'iflag=direct', 'status=none'],
        options,
      );
      assert.ok(found.equals(disk));
      await daemon.client.detach('d');
    });
  });

  test('prefetch --wait is complete only with the right bytes', async () => {
    await withDaemon('', async (daemon, run) => {
      const config = configIn(daemon);
      const [digest, right] = [...registry.blobs][0]!;
      const wrong = Buffer.from(right);
      wrong[wrong.length / 2]! ^= 1;
      registry.blobs.set(digest, wrong);
      const waiting = run('prefetch', '--wait', config);
      const deadlineMs = performance.now() + 10_000;
      while (!/failing/.test(await run('devices'))) {
        assert.ok(performance.now() < deadlineMs, 'wrong bytes are not noticed');
      }
      registry.blobs.set(digest, right);
      assert.match(await waiting, /complete/);
      assert.match(await run('cache', 'verify'), /^Checked [\d.]+ MiB in 1 blobs, 0 failed/);
      await run('cache', 'prune');
      assert.doesNotMatch(await run('devices'), /complete/);
    });
  });

  test('prefetch --wait fails if the cache is too small, and says what to raise', async () => {
    await withDaemon('cache_size = "2 MiB"\n', async (daemon) => {
      const config = configIn(daemon);
      const { status, stderr } = await obdctl(
        'prefetch',
        '--wait',
        config,
        '--blockd',
        daemon.socket,
      );
      assert.equal(status, 1);
      assert.match(
        stderr,
        /Cannot prefetch .*image\.json: it has 8\.1 MiB, and the cache has room for 2\.0 MiB; raise cache_size/,
      );
    });
  });

  test('prefetch without --wait returns at once, with the progress as JSON', async () => {
    await withDaemon('[fill]\nrate = "1 MiB"\n', async (daemon, run) => {
      const found = JSON.parse(await run('prefetch', '--json', configIn(daemon)));
      assert.match(found.state, /waiting|filling/);
      assert.equal(found.totalBytes, blob.length);
    });
  });

  test('prefetch of other layers by the same name takes the place of the first', async () => {
    await withDaemon('[fill]\nrate = "1 MiB"\n', async (daemon, run) => {
      const config = configIn(daemon);
      await run('prefetch', config);
      const other = layerOf(disk.subarray(0, DISK_BYTES / 2), () => true);
      const digest = registry.addBlob(other);
      const image = JSON.parse(readFileSync(config, 'utf8'));
      writeFileSync(config, JSON.stringify({ ...image, lowers: [{ digest, size: other.length }] }));
      const found = JSON.parse(await run('prefetch', '--json', config));
      assert.equal(found.totalBytes, other.length);
    });
  });

  test('cache ls, du and prune: what a device uses stays', async () => {
    await withDaemon('cache_size = "100 MiB"\n', async (daemon, run) => {
      const usage = async (): Promise<Usage> => JSON.parse(await run('cache', 'du', '--json'));
      assert.equal((await usage()).blobs, 0);
      const config = configIn(daemon);
      await run('prefetch', '--wait', config);
      await daemon.client.attach('d', config);
      const inUse = await usage();
      assert.deepEqual(
        [inUse.blobs, inUse.inUseBytes, inUse.unusedBytes, inUse.capacityBytes],
        [1, blob.length, 0, 100 << 20],
      );
      assert.match(
        await run('cache', 'ls'),
        new RegExp(`^DIGEST .*\nsha256:.* ${registry.host} .* in use\n$`),
      );
      assert.equal(await run('cache', 'prune'), 'Removed 0 blobs, 0 B\n');
      await daemon.client.detach('d');
      assert.equal((await usage()).inUseBytes, 0);
      assert.match(await run('cache', 'ls'), / \d{4}-\d\d-\d\dT[\d:.]+Z\n$/);
      assert.match(await run('cache', 'du'), /^blobs +1\nin use +0 B\nunused +[\d.]+ MiB\n/);
      assert.match(await run('cache', 'prune'), /^Removed 1 blob, [\d.]+ MiB\n$/);
      assert.equal((await usage()).blobs, 0);
      const asked = registry.seen.length;
      await run('prefetch', '--wait', config);
      assert.ok(registry.seen.length > asked, 'it was fetched again');
    });
  });

  test('cache verify drops a damaged blob, which is then fetched again', async () => {
    await withDaemon('', async (daemon, run) => {
      const config = configIn(daemon);
      await run('prefetch', '--wait', config);
      assert.match(await run('cache', 'verify'), /^Checked [\d.]+ MiB in 1 blobs, 0 failed/);
      const digest = registry.addBlob(blob);
      const folder = join(daemon.stateDirectory, 'cache', 'blobs', registry.host);
      const file = openSync(join(folder, digest.slice('sha256:'.length)), 'r+');
      writeSync(file, Buffer.of(blob[blob.length / 2]! ^ 1), 0, 1, blob.length / 2);
      closeSync(file);
      const { status, stdout } = await obdctl('cache', 'verify', '--blockd', daemon.socket);
      assert.equal(status, 1);
      assert.match(stdout, new RegExp(`^${digest}: failed, dropped\nChecked .* 1 failed`));
      await run('prefetch', '--wait', config);
      assert.match(await run('cache', 'verify'), / 0 failed/);
    });
  });

  test('cache verify leaves the order of eviction as it is', async () => {
    await withDaemon('', async (daemon, run) => {
      const config = configIn(daemon);
      const image = JSON.parse(readFileSync(config, 'utf8'));
      await run('prefetch', '--wait', config);
      for (const share of [2, 4]) {
        const other = layerOf(disk.subarray(0, DISK_BYTES / share), () => true);
        const lowers = [{ digest: registry.addBlob(other), size: other.length }];
        writeFileSync(config, JSON.stringify({ ...image, lowers }));
        await run('prefetch', '--wait', config);
      }
      const order = async (): Promise<string[]> => {
        const blobs: { digest: string }[] = JSON.parse(await run('cache', 'ls', '--json'));
        return blobs.map(({ digest }) => digest);
      };
      const before = await order();
      assert.deepEqual(before, [...registry.blobs.keys()].toReversed());
      assert.match(await run('cache', 'verify'), / in 3 blobs, 0 failed/);
      assert.deepEqual(await order(), before);
    });
  });

  test('cache verify leaves no file open', async () => {
    await withDaemon('', async (daemon, run) => {
      await run('prefetch', '--wait', configIn(daemon));
      const folder = join(daemon.stateDirectory, 'cache', 'blobs', registry.host);
      const name = registry.addBlob(blob).slice('sha256:'.length);
      // Blocks that the page cache lacks are read by another descriptor.
      execFileSync('dd', [
        `of=${join(folder, name)}`,
        ...'oflag=nocache conv=notrunc,fsync count=0 status=none'.split(' '),
      ]);
      assert.match(await run('cache', 'verify'), / 0 failed/);
      const open = `/proc/${daemon.pid}/fd`;
      const files = readdirSync(open).map((fd) => {
        try {
          return readlinkSync(join(open, fd));
        } catch {
          return '';
        }
      });
      assert.deepEqual(
        files.filter((path) => path.includes(name)),
        [],
      );
    });
  });
});

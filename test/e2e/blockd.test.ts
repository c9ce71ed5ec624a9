/**
 * Goal: obd-blockd serves the registry's bytes unchanged, or an error that names the cause; when the registry, the disk
 * or the daemon fails, it neither hangs, nor serves wrong bytes, nor leaves anything behind. The next daemon takes over
 * its devices after any kind of exit, and their readers see no error.
 * Method: the real daemon; a real registry that stops, and whose files are damaged; devices of this kernel read with
 * dd, also while the daemon is killed and started; afterwards the test looks for mounts, loop devices and processes.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { ErrorCodes } from '../../src/errors.js';
import { type BlockImage, layerOf, twoLayers } from '../support/block-image.js';
import { BlockdProcess, blockdUnfit, spawnBlockd } from '../support/blockd-process.js';
import { PrivateRegistry, registryUnfit } from '../support/private-registry.js';
import { pagesOf } from '../support/virtual-disks.js';

const DISK_BYTES = 16 << 20;
const PAGE_BYTES = 4096;
const CUT_TURNS = 4;
const unfit = blockdUnfit || registryUnfit;

let registry: PrivateRegistry;
let image: BlockImage;

/** An image config for blobs in the registry. */
async function configOf(
  directory: string,
  name: string,
  blobs: readonly Buffer[],
): Promise<{ path: string; digests: string[] }> {
  const digests: string[] = [];
  for (const blob of blobs) digests.push(await registry.push(`test/${name}`, blob));
  const lowers = digests.map((digest, i) => ({ digest, size: blobs[i]?.length }));
  const path = join(directory, `${name}.json`);
  const repoBlobUrl = `http://${registry.host}/v2/test/${name}/blobs`;
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers }));
  return { path, digests };
}

/** [offset, offset + length) of a device, past the page cache. @throws with dd's words. */
async function read(device: string, offset: number, length: number): Promise<Buffer> {
  const args = [`if=${device}`, `bs=${PAGE_BYTES}`, 'iflag=direct', 'status=none'];
  const range = [`skip=${offset / PAGE_BYTES}`, `count=${length / PAGE_BYTES}`];
  const options = { encoding: 'buffer', maxBuffer: 2 * DISK_BYTES } as const;
  return await new Promise((resolve, reject) => {
    execFile('dd', [...args, ...range], options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(stderr.toString(), { cause: error }));
    });
  });
}

async function assertReads(device: string, disk: Buffer): Promise<void> {
  assert.ok((await read(device, 0, disk.length)).equals(disk), 'other bytes than the image has');
}

/** A disk that differs from all others here, as one layer. */
function freshLayer(seed: number): { disk: Buffer; blob: Buffer } {
  const disk = pagesOf(DISK_BYTES);
  for (let at = 0; at < disk.length; at += PAGE_BYTES) disk.writeUInt32LE(seed, at);
  return { disk, blob: layerOf(disk, () => true) };
}

function flipBit(path: string, offset: number): void {
  const byte = readFileSync(path)[offset] ?? 0;
  const file = openSync(path, 'r+');
  writeSync(file, Buffer.of(byte ^ 1), 0, 1, offset);
  closeSync(file);
}

async function finished(child: ChildProcess): Promise<{ status: number; output: string }> {
  const output = Promise.all([
    text(child.stdout as NodeJS.ReadableStream),
    text(child.stderr as NodeJS.ReadableStream),
  ]);
  const [status] = (await once(child, 'close')) as [number];
  return { status, output: (await output).join('') };
}

describe('obd-blockd', { skip: unfit, timeout: 600_000 }, () => {
  before(async () => {
    registry = await PrivateRegistry.start();
    image = twoLayers(DISK_BYTES);
  });
  after(async () => await registry.stop());

  describe('serves', () => {
    let daemon: BlockdProcess;
    before(async () => {
      daemon = await BlockdProcess.start('read_deadline = "8 s"\n');
    });
    after(async () => await daemon.stop());

    test('the bytes of the image, and fetches each chunk that is read once', async () => {
      const { path: config } = await configOf(daemon.directory, 'good', image.blobs);
      const { path, remoteBytes, layers } = await daemon.client.attach('a', config);
      assert.equal(layers, 2);
      const page = 5 * PAGE_BYTES;
      const bytes = await read(path, page, PAGE_BYTES);
      assert.ok(bytes.equals(image.disk.subarray(page, page + PAGE_BYTES)));
      const [first] = await daemon.client.list();
      assert.ok((first?.fetchedBytes ?? 0) < remoteBytes / 4, JSON.stringify(first));
      await assertReads(path, image.disk);
      const [all] = await daemon.client.list();
      assert.deepEqual([all?.fetchedBytes, all?.cachedBytes], [remoteBytes, remoteBytes]);

      const second = await daemon.client.attach('b', config);
      assert.notEqual(second.path, path);
      await assertReads(second.path, image.disk);
      const b = (await daemon.client.list()).find(({ id }) => id === 'b');
      assert.deepEqual([b?.fetchedBytes, b?.fetchRequests, b?.readErrors], [0, 0, 0]);
      await daemon.client.detach('a');
      await daemon.client.detach('b');
      assert.deepEqual(daemon.debris(), []);
    });

    test('over a socket that is for its owner alone', () => {
      assert.equal(statSync(daemon.socket).mode & 0o777, 0o600);
      assert.equal(statSync(daemon.stateDirectory).mode & 0o777, 0o700);
    });

    test('EIO for a damaged block only, and names it', async () => {
      const { disk, blob } = freshLayer(1);
      const { path: config, digests } = await configOf(daemon.directory, 'flipped', [blob]);
      const digest = digests[0] ?? '';
      flipBit(registry.blobFile(digest), blob.length >> 1);
      const { path } = await daemon.client.attach('flipped', config);
      await assert.rejects(read(path, 0, DISK_BYTES), /Input\/output error/);
      await assert.rejects(read(path, 0, DISK_BYTES), /Input\/output error/);
      const half = DISK_BYTES / 2 - (1 << 20);
      assert.ok((await read(path, 0, half)).equals(disk.subarray(0, half)));
      const line = await daemon.logged(({ id, msg }) => id === 'flipped' && /EIO/.test(msg));
      assert.equal(line.level, 'error');
      assert.match(JSON.stringify(line), new RegExp(`${digest} of ${registry.host}/test/flipped`));
      assert.equal(typeof line['offset'], 'number');
      const [device] = await daemon.client.list();
      assert.ok((device?.readErrors ?? 0) > 0);
      await daemon.client.detach('flipped');
    });

    test('no image whose blob is cut short', async () => {
      const { blob } = freshLayer(2);
      const { path: config, digests } = await configOf(daemon.directory, 'cut', [blob]);
      truncateSync(registry.blobFile(digests[0] ?? ''), blob.length - 5000);
      await assert.rejects(daemon.client.attach('cut', config), {
        code: ErrorCodes.Registry,
        message: new RegExp(`layer 1 of 1: .*${digests[0]}.*${registry.host}`),
      });
      assert.deepEqual([await daemon.client.list(), daemon.debris()], [[], []]);
    });

    test('no image that is missing or invalid', async () => {
      const missing = join(daemon.directory, 'none.json');
      await assert.rejects(daemon.client.attach('x', missing), { code: ErrorCodes.NotFound });
      const { path: noise } = await configOf(daemon.directory, 'noise', [pagesOf(100_000)]);
      await assert.rejects(daemon.client.attach('x', noise), { code: ErrorCodes.Corrupt });
      writeFileSync(missing, '{"lowers":5}');
      await assert.rejects(daemon.client.attach('x', missing), {
        code: ErrorCodes.InvalidArgument,
        message: /none\.json.*lowers/,
      });
      assert.deepEqual([await daemon.client.list(), daemon.debris()], [[], []]);
    });
  });

  describe('while the registry is away', () => {
    let daemon: BlockdProcess;
    before(async () => {
      daemon = await BlockdProcess.start('read_deadline = "20 s"\n');
    });
    after(async () => await daemon.stop());

    test('reads cached bytes, waits for the registry, and gives up at the deadline', async () => {
      const { disk, blob } = freshLayer(3);
      const { path: config } = await configOf(daemon.directory, 'away', [blob]);
      const { path } = await daemon.client.attach('away', config);
      const cached = await read(path, 0, PAGE_BYTES);
      await registry.goAway();
      assert.ok((await read(path, 0, PAGE_BYTES)).equals(cached));

      const waiting = read(path, DISK_BYTES / 2, PAGE_BYTES);
      await setTimeout(1_500);
      await registry.comeBack();
      const at = DISK_BYTES / 2;
      assert.ok((await waiting).equals(disk.subarray(at, at + PAGE_BYTES)));

      await registry.goAway();
      const startedMs = performance.now();
      await assert.rejects(read(path, DISK_BYTES - (4 << 20), PAGE_BYTES), /Input\/output error/);
      const tookMs = performance.now() - startedMs;
      assert.ok(tookMs > 15_000 && tookMs < 60_000, `${tookMs} ms`);
      const line = await daemon.logged(({ msg }) => /EIO/.test(msg));
      assert.match(JSON.stringify(line), new RegExp(registry.host));

      await registry.comeBack();
      await assertReads(path, disk);
      await daemon.client.detach('away');
    });
  });

  test('a small disk is never filled by the cache, and every read is answered', async () => {
    const { disk, blob } = freshLayer(4);
    const daemon = await BlockdProcess.start('', (state) => {
      mkdirSync(state);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=0700', 'obd-test', state]);
    });
    try {
      const { path: config } = await configOf(daemon.directory, 'full', [blob]);
      const { path } = await daemon.client.attach('full', config);
      await assertReads(path, disk);
      await assertReads(path, disk);
      // The cache leaves half of so small a disk free: it evicted chunks for later ones.
      const { bavail, bsize } = statfsSync(daemon.stateDirectory);
      assert.ok(bavail * bsize >= 1.5 * 2 ** 20, `${bavail * bsize} bytes are free`);
      await daemon.client.detach('full');
      assert.equal(await daemon.end('SIGTERM'), 0);
      assert.deepEqual(daemon.debris(), []);
    } finally {
      await daemon.end('SIGKILL');
      execFileSync('umount', [daemon.stateDirectory]);
    }
    await daemon.restart();
    await daemon.stop();
  });

  describe('starts', () => {
    test('not with an invalid configuration: status 2, file and key', async () =>
      await BlockdProcess.with(async (daemon) => {
        const path = join(daemon.directory, 'wrong.toml');
        for (const [content, expected] of [
          ['cache_sizes = "1 GiB"', /wrong\.toml.*"cache_sizes".*cache_size/],
          ['cache_size = true', /wrong\.toml.*"cache_size"/],
          ['[registry]\nplain_http = ["http://x"]', /"http:\/\/x"/],
        ] as const) {
          writeFileSync(path, content);
          const { status, output } = await finished(spawnBlockd('--config', path));
          assert.deepEqual([status, expected.test(output)], [2, true], output);
        }
        const missing = await finished(
          spawnBlockd('--config', join(daemon.directory, 'none.toml')),
        );
        assert.equal(missing.status, 1);
        const help = await finished(spawnBlockd('--help'));
        assert.ok(help.status === 0 && help.output.includes('[registry.hosts]'), help.output);
      }));

    test('once on its state and its sockets: status 1', async () =>
      await BlockdProcess.with(async (daemon) => {
        const second = await finished(spawnBlockd('--config', daemon.configPath));
        assert.equal(second.status, 1);
        assert.match(second.output, /state.*process [0-9]+/);
        const path = join(daemon.directory, 'second.toml');
        const config = readFileSync(daemon.configPath, 'utf8').replace('/state"', '/state2"');
        writeFileSync(path, config);
        const third = await finished(spawnBlockd('--config', path));
        assert.equal(third.status, 1);
        assert.match(third.output, /sock/);
        assert.deepEqual(await daemon.client.list(), []);
      }));
  });

  describe('ends', () => {
    test('killed, and its device is there when it starts again', async () =>
      await BlockdProcess.with(async (daemon) => {
        const { path: config } = await configOf(daemon.directory, 'killed', image.blobs);
        const { path: other } = await configOf(daemon.directory, 'other', image.blobs);
        const { path, layers } = await daemon.client.attach('killed', config);
        await daemon.end('SIGKILL');
        await daemon.restart();
        const taken = { code: ErrorCodes.AlreadyExists };
        await assert.rejects(daemon.client.attach('killed', other), taken);
        const again = await daemon.client.attach('killed', config);
        assert.deepEqual([again.path, again.layers, again.state], [path, layers, 'attached']);
        await assertReads(path, image.disk);
        await daemon.client.detach('killed');
        assert.deepEqual([await daemon.client.list(), daemon.debris()], [[], []]);
      }));

    test('killed, and reads wait while its successor has nothing and no registry', async () =>
      await BlockdProcess.with(async (daemon) => {
        const { path: config } = await configOf(daemon.directory, 'bare', image.blobs);
        const { path } = await daemon.client.attach('bare', config);
        await daemon.end('SIGKILL');
        rmSync(join(daemon.stateDirectory, 'cache'), { recursive: true });
        await registry.goAway();
        let reading: Promise<void>;
        try {
          await daemon.restart();
          const [device] = await daemon.client.list();
          assert.deepEqual([device?.path, device?.state], [path, 'recovering']);
          reading = assertReads(path, image.disk);
          await setTimeout(500);
        } finally {
          await registry.comeBack();
        }
        await reading;
        const { state } = await daemon.client.attach('bare', config);
        assert.equal(state, 'attached');
      }));

    test('killed while it attaches or detaches, and has each device in whole or not at all', async () =>
      await BlockdProcess.with(async (daemon) => {
        const { path: config } = await configOf(daemon.directory, 'cut-off', image.blobs);
        const { client } = daemon;
        const startedMs = performance.now();
        await client.attach('x', config);
        const attachMs = performance.now() - startedMs;
        for (let turn = 0; turn < 2 * CUT_TURNS; turn++) {
          const attaching = turn % 2 === 0;
          if (attaching) await client.detach('x');
          else await client.attach('x', config);
          const call = attaching ? client.attach('x', config) : client.detach('x');
          const answered = call.then(
            () => true,
            () => false,
          );
          await setTimeout(Math.random() * attachMs);
          await daemon.end('SIGKILL');
          const wasAnswered = await answered;
          await daemon.restart();
          const [device] = await client.list();
          if (wasAnswered) assert.equal(device !== undefined, attaching);
          if (device === undefined) assert.deepEqual(daemon.debris(), []);
          else await assertReads((await client.attach('x', config)).path, image.disk);
        }
        await client.detach('x');
        assert.deepEqual([await client.list(), daemon.debris()], [[], []]);
      }));

    test('at once, also while an attach waits for a registry', async () =>
      await BlockdProcess.with(async (daemon) => {
        const { path: config } = await configOf(daemon.directory, 'waits', image.blobs);
        await registry.goAway();
        try {
          const attach = daemon.client.attach('waits', config);
          const refused = assert.rejects(attach, /Cannot open layer/);
          await setTimeout(500);
          const startedMs = performance.now();
          assert.equal(await daemon.end('SIGTERM'), 0);
          assert.ok(performance.now() - startedMs < 4_000);
          await refused;
        } finally {
          await registry.comeBack();
        }
        assert.deepEqual(daemon.debris(), []);
        await daemon.restart();
      }));

    for (const [signal, times] of [
      ['SIGKILL', Number(process.env['OBD_KILLS'] ?? 4)],
      ['SIGTERM', 3],
    ] as const) {
      test(`by ${signal} under a mounted device, ${times} times, and its readers see no error`, async () =>
        await BlockdProcess.with(async (daemon) => {
          const { disk, blob } = ext4Layer();
          const { path: config } = await configOf(daemon.directory, 'used', [blob]);
          const { path } = await daemon.client.attach('used', config);
          const target = join(daemon.directory, 'mnt');
          mkdirSync(target);
          execFileSync('mount', ['-t', 'ext4', '-o', 'ro', path, target]);
          const readers = Array.from({ length: 2 }, () => new Reader(path, disk));
          try {
            await assert.rejects(daemon.client.detach('used'), { code: ErrorCodes.Busy });
            for (let turn = 0; turn < times; turn++) {
              await setTimeout(Math.random() * 200);
              const startedMs = performance.now();
              const status = await daemon.end(signal);
              assert.ok(performance.now() - startedMs < 15_000);
              if (signal === 'SIGTERM') assert.equal(status, 0);
              await daemon.restart();
              for (const reader of readers) await reader.progress();
            }
            for (const reader of readers) await reader.stop();
            const [device] = await daemon.client.list();
            assert.deepEqual([device?.path, device?.state], [path, 'attached']);
            if (signal === 'SIGTERM')
              await daemon.logged(({ msg }) => /kept for the next run/.test(msg));
          } finally {
            for (const reader of readers) reader.cancel();
            execFileSync('umount', ['--lazy', target]);
          }
          assert.ok(!daemon.log().some(({ msg }) => /EIO/.test(msg)));
          await daemon.client.detach('used');
        }));
    }
  });
});

/** Reads a device over and over, all of it, and compares. */
class Reader {
  #rounds = 0;
  #cancelled = false;
  readonly #run: Promise<void>;

  constructor(path: string, disk: Buffer) {
    this.#run = this.#loop(path, disk);
    // The next progress() or stop() rejects with this error.
    this.#run.catch(() => {});
  }

  async #loop(path: string, disk: Buffer): Promise<void> {
    for (; !this.#cancelled; this.#rounds++) await assertReads(path, disk);
  }

  /** Waits until it has read the whole device once, starting after this call. */
  async progress(): Promise<void> {
    const wanted = this.#rounds + 2;
    while (this.#rounds < wanted) await Promise.race([this.#run, setTimeout(10)]);
  }

  cancel(): void {
    this.#cancelled = true;
  }

  async stop(): Promise<void> {
    this.cancel();
    await this.#run;
  }
}

/** A file system that can be mounted, as one layer. */
function ext4Layer(): { disk: Buffer; blob: Buffer } {
  const directory = execFileSync('mktemp', ['-d', '/var/tmp/obdx.XXXXXX'], { encoding: 'utf8' });
  const path = join(directory.trim(), 'disk');
  writeFileSync(path, '');
  truncateSync(path, DISK_BYTES);
  execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', path]);
  const disk = readFileSync(path);
  execFileSync('rm', ['-r', directory.trim()]);
  return { disk, blob: layerOf(disk, () => true) };
}

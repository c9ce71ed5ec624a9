/**
 * Goal: neither a full disk nor a hostile image takes a host down.
 * Method: the real daemon on a small ext4 that is filled to the last byte, and with crafted layers that claim more memory
 * than its limit.
 */
import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { systemCode } from '../../src/errors.js';
import { CHUNK_BYTES } from '../../src/io/random-access-file.js';
import { RECORDS_MAX } from '../../src/lsmt/committed-layer.js';
import { encodeRecord, RECORD_BYTES } from '../../src/lsmt/index-records.js';
import { layerOf } from '../support/block-image.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { HostileRegistry } from '../support/hostile-registry.js';
import { headerBlock } from '../support/layer-samples.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { programArguments } from '../support/program.js';
import { SnapshotterProcess } from '../support/snapshotter-process.js';
import { trustCase } from '../support/trust-case.js';
import { pagesOf } from '../support/virtual-disks.js';

const DISK_BYTES = 8 << 20;
const skip = blockdUnfit === false ? undefined : blockdUnfit;
const CGROUPS = '/sys/fs/cgroup/memory';
const noCgroup = existsSync(`${CGROUPS}/memory.limit_in_bytes`)
  ? undefined
  : 'no memory controller of cgroup v1 here';

/** An image of one layer that differs from others by its seed. */
function imageConfig(registry: LoopbackRegistry, directory: string, seed: number) {
  const disk = pagesOf(DISK_BYTES);
  for (let at = 0; at < disk.length; at += 4096) disk.writeUInt32LE(seed, at);
  const blob = layerOf(disk, () => true);
  const path = join(directory, `image-${seed}.json`);
  const repoBlobUrl = `http://${registry.host}/v2/app/blobs`;
  const lowers = [{ digest: registry.addBlob(blob), size: blob.length }];
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers }));
  return { path, disk };
}

/** An image of twelve layers that all claim the largest index. */
function hostileConfig(hostile: HostileRegistry, directory: string, layers: number): string {
  const lowers = Array.from({ length: layers }, (_, i) => {
    const hex = createHash('sha256').update(`hostile ${i}`).digest('hex');
    return { digest: `sha256:${hex}`, size: hostile.blobBytes };
  });
  const path = join(directory, 'hostile.json');
  const repoBlobUrl = `http://${hostile.host}/v2/hostile/blobs`;
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers }));
  return path;
}

/** Compares a whole device, past the page cache. */
async function assertReads(device: string, disk: Buffer): Promise<void> {
  const args = [`if=${device}`, 'bs=1M', 'iflag=direct', 'status=none'];
  // Async: this process serves the registry during the read.
  const { stdout } = await promisify(execFile)('dd', args, {
    encoding: 'buffer',
    maxBuffer: 2 * DISK_BYTES,
  });
  assert.ok(stdout.equals(disk), 'wrong bytes');
}

/** A full disk has at most so many free blocks: the daemon's own reserve. */
const FULL_BLOCKS_MAX = 200;

/** Writes until the disk has no byte left. */
function fill(path: string): void {
  const file = openSync(path, 'w');
  try {
    for (let bytes = 1 << 20; bytes >= 1; bytes >>= 1) {
      try {
        for (;;) writeSync(file, Buffer.alloc(bytes, 1));
      } catch (error) {
        if (systemCode(error) !== 'ENOSPC') throw error;
      }
    }
  } finally {
    closeSync(file);
  }
}

/**
 * Runs `work` with a daemon whose state is on an ext4 of `bytes`.
 * @param before - Done to the mounted state directory before the daemon starts there.
 */
async function onSmallDisk(
  bytes: number,
  work: (daemon: BlockdProcess, registry: LoopbackRegistry) => Promise<string>,
  before: (state: string) => void = () => {},
): Promise<string> {
  const registry = await LoopbackRegistry.start();
  let mounted = '';
  const daemon = await BlockdProcess.start('', (state) => {
    const image = `${state}.ext4`;
    writeFileSync(image, '');
    truncateSync(image, bytes);
    execFileSync('mke2fs', ['-q', '-t', 'ext4', '-m', '0', image]);
    mkdirSync(state);
    execFileSync('mount', ['-o', 'loop', image, state]);
    mounted = state;
    before(state);
  });
  try {
    return await work(daemon, registry);
  } finally {
    daemon.client.close();
    await daemon.end('SIGTERM');
    execFileSync('umount', [mounted]);
    rmSync(daemon.directory, { recursive: true });
    await registry.close();
  }
}

/** The line of `obdctl doctor` about the disk. */
async function doctorOnDisk(stateDirectory: string): Promise<string> {
  const args = [...programArguments('obdctl'), 'doctor', '--state', stateDirectory];
  const text = await promisify(execFile)(process.execPath, args).then(
    ({ stdout }) => stdout,
    // doctor fails if this host lacks something else.
    (error: { stdout: string }) => error.stdout,
  );
  return /^disk space.*$/m.exec(text)?.[0] ?? text;
}

const figureOf = async (daemon: BlockdProcess, id: string) =>
  (await daemon.client.list()).find((device) => device.id === id)?.cachedBytes ?? -1;

trustCase(
  'limits',
  'a disk that others fill to the last byte',
  'the daemon starts, attaches and serves; it stores again when there is room',
  async () =>
    await onSmallDisk(48 << 20, async (daemon, registry) => {
      const one = imageConfig(registry, daemon.directory, 1);
      const device = await daemon.client.attach('one', one.path);
      await assertReads(device.path, one.disk);
      const ballast = join(daemon.stateDirectory, 'ballast');
      fill(ballast);
      // The cache frees its space, and the ballast takes it.
      // All but the first chunk of the blob, by which an answer that is sent whole is checked.
      for (let turn = 0; (await figureOf(daemon, 'one')) > CHUNK_BYTES; turn++) {
        assert.ok(turn < 600, 'the cache gives nothing back');
        await setTimeout(100);
      }
      // The cache punches holes some time after it drops chunks: fill until the disk stays full.
      for (let quiet = 0, turn = 2; quiet < 5; turn++) {
        assert.ok(turn < 200, 'the cache goes on giving back');
        fill(`${ballast}-${turn}`);
        await setTimeout(200);
        const { bavail } = await statfs(daemon.stateDirectory);
        quiet = bavail < FULL_BLOCKS_MAX ? quiet + 1 : 0;
      }
      await daemon.end('SIGKILL');
      await daemon.restart();
      const two = imageConfig(registry, daemon.directory, 2);
      const other = await daemon.client.attach('two', two.path);
      await assertReads(other.path, two.disk);
      await assertReads(device.path, one.disk);
      const { bavail } = await statfs(daemon.stateDirectory);
      // The new device uses a part of the daemon's spare MiB.
      assert.ok(bavail < FULL_BLOCKS_MAX, `${bavail} blocks are free`);
      assert.match(await doctorOnDisk(daemon.stateDirectory), /warn .*stores nothing/);
      for (const name of readdirSync(daemon.stateDirectory)) {
        if (name.startsWith('ballast')) rmSync(join(daemon.stateDirectory, name));
      }
      await setTimeout(1100);
      const three = imageConfig(registry, daemon.directory, 3);
      const third = await daemon.client.attach('three', three.path);
      await assertReads(third.path, three.disk);
      const cached = await figureOf(daemon, 'three');
      assert.ok(cached > 0, 'nothing is cached after room came back');
      await daemon.client.detach('one');
      await daemon.client.detach('two');
      await daemon.client.detach('three');
      return `started, two images right, with ${bavail} blocks free; then ${cached} bytes cached`;
    }),
  { skip, timeout: 150_000 },
);

trustCase(
  'limits',
  'a disk of the snapshotter that others fill to the last byte',
  'every snapshot can be removed, before and after a restart, so that containerd can free the disk',
  async () => {
    const snapshotter = await SnapshotterProcess.start();
    const { client, root } = snapshotter;
    await snapshotter.end('SIGTERM');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', root]);
    try {
      await snapshotter.restart();
      const chain = ['a', 'b', 'c', 'd', 'e', 'f'];
      for (const [i, name] of chain.entries()) {
        await client.prepare('key', chain[i - 1] ?? '');
        await client.commit(name, 'key');
      }
      for (const [i, name] of chain.reverse().entries()) {
        if (i === 3) {
          await snapshotter.end('SIGTERM');
          fill(join(root, 'ballast'));
          await snapshotter.restart();
        }
        fill(join(root, `ballast-${i}`));
        await client.remove(name);
      }
      assert.deepEqual(await client.list(), []);
      return `${chain.length} snapshots removed`;
    } finally {
      await snapshotter.end('SIGTERM');
      execFileSync('umount', [root]);
      rmSync(snapshotter.directory, { recursive: true });
    }
  },
  { skip, timeout: 60_000 },
);

trustCase(
  'limits',
  'a disk that is full before the daemon was ever started there',
  'the daemon starts, attaches one image after the other, and serves',
  async () =>
    await onSmallDisk(
      16 << 20,
      async (daemon, registry) => {
        for (const seed of [1, 2, 3]) {
          const image = imageConfig(registry, daemon.directory, seed);
          const device = await daemon.client.attach(`image-${seed}`, image.path);
          await assertReads(device.path, image.disk);
        }
        await daemon.end('SIGKILL');
        await daemon.restart();
        const { bavail } = await statfs(daemon.stateDirectory);
        for (const seed of [3, 2, 1]) await daemon.client.detach(`image-${seed}`);
        const errors = daemon.log().filter(({ level }) => level === 'error');
        assert.deepEqual(errors, []);
        return `3 images right with ${bavail} blocks free`;
      },
      (state) => fill(join(state, 'ballast')),
    ),
  { skip, timeout: 60_000 },
);

for (const inodes of [2, 3]) {
  trustCase(
    'limits',
    `a file system with room for ${inodes - 1} files when the daemon first starts there`,
    'the daemon starts, attaches and serves',
    async () => {
      const registry = await LoopbackRegistry.start();
      const daemon = await BlockdProcess.start('', (state) => {
        mkdirSync(state);
        execFileSync('mount', ['-t', 'tmpfs', '-o', `nr_inodes=${inodes}`, 'tmpfs', state]);
      });
      try {
        const image = imageConfig(registry, daemon.directory, 9);
        const device = await daemon.client.attach('one', image.path);
        await assertReads(device.path, image.disk);
        await daemon.client.detach('one');
        return 'one image right';
      } finally {
        daemon.client.close();
        await daemon.end('SIGTERM');
        execFileSync('umount', [daemon.stateDirectory]);
        rmSync(daemon.directory, { recursive: true });
        await registry.close();
      }
    },
    { skip, timeout: 60_000 },
  );
}

trustCase(
  'limits',
  'an image larger than half of its disk',
  'every byte right, and half of the disk stays free',
  async () =>
    await onSmallDisk(16 << 20, async (daemon, registry) => {
      const image = imageConfig(registry, daemon.directory, 3);
      const device = await daemon.client.attach('big', image.path);
      for (let turn = 0; turn < 3; turn++) {
        await assertReads(device.path, image.disk);
        await setTimeout(1100);
      }
      const { blocks, bavail } = await statfs(daemon.stateDirectory);
      assert.ok(bavail / blocks > 0.45, `${bavail} of ${blocks} blocks are free`);
      await daemon.client.detach('big');
      return `3 reads of all of it right, ${bavail} of ${blocks} blocks free`;
    }),
  { skip, timeout: 60_000 },
);

trustCase(
  'limits',
  'twelve crafted layers that claim 128 MiB of index each',
  'refused by index_memory before their indexes are fetched; another image goes on',
  async () => {
    const hostile = await HostileRegistry.start();
    const registry = await LoopbackRegistry.start();
    const daemon = await BlockdProcess.start('index_memory = "100 MiB"\n');
    try {
      const good = imageConfig(registry, daemon.directory, 4);
      const device = await daemon.client.attach('good', good.path);
      const path = hostileConfig(hostile, daemon.directory, 12);
      for (let turn = 0; turn < 3; turn++) {
        await assert.rejects(daemon.client.attach('hostile', path), /index_memory/);
      }
      await assertReads(device.path, good.disk);
      const status = readFileSync(`/proc/${daemon.pid}/status`, 'latin1');
      const peakMiB = Number(/^VmHWM:\s+([0-9]+)/m.exec(status)?.[1]) / 1024;
      const sentMiB = hostile.sentBytes / 2 ** 20;
      assert.ok(sentMiB < 40, `${sentMiB} MiB were fetched`);
      assert.ok(peakMiB < 400, `it took ${peakMiB} MiB`);
      await daemon.client.detach('good');
      await daemon.stop();
      return `refused 3 times, ${sentMiB.toFixed(1)} MiB fetched, ${peakMiB.toFixed(0)} MiB at most`;
    } finally {
      await daemon.end('SIGTERM');
      await hostile.stop();
      await registry.close();
    }
  },
  { skip, timeout: 60_000 },
);

/** Runs `work` in a memory cgroup that the process `pid` is moved to. @returns How often something was killed there. */
async function withinMemory(pid: number, bytes: number, work: () => Promise<void>) {
  const cgroup = `${CGROUPS}/obd-trust-${pid}`;
  mkdirSync(cgroup);
  try {
    writeFileSync(`${cgroup}/memory.limit_in_bytes`, String(bytes));
    writeFileSync(`${cgroup}/cgroup.procs`, String(pid));
    await work();
    const control = readFileSync(`${cgroup}/memory.oom_control`, 'latin1');
    return Number(/^oom_kill ([0-9]+)/m.exec(control)?.[1] ?? 0);
  } finally {
    for (const left of readFileSync(`${cgroup}/cgroup.procs`, 'latin1').match(/[0-9]+/g) ?? []) {
      writeFileSync(`${CGROUPS}/cgroup.procs`, left);
    }
    rmdirSync(cgroup);
  }
}

function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/^VmRSS:\s+([0-9]+)/m.exec(status)?.[1]) / 1024;
}

trustCase(
  'limits',
  '255 of those layers, with the default budget under a limit of 1 GiB',
  'refused, nothing killed, another image right all the time, the memory given back',
  async () => {
    const hostile = await HostileRegistry.start();
    const registry = await LoopbackRegistry.start();
    const daemon = await BlockdProcess.start();
    try {
      const good = imageConfig(registry, daemon.directory, 5);
      const device = await daemon.client.attach('good', good.path);
      await assertReads(device.path, good.disk);
      const path = hostileConfig(hostile, daemon.directory, 255);
      const beforeMiB = residentMiB(daemon.pid);
      let reads = 0;
      const kills = await withinMemory(daemon.pid, 1 << 30, async () => {
        let refused = false;
        const attach = assert
          .rejects(daemon.client.attach('hostile', path), /index_memory/)
          .finally(() => {
            refused = true;
          });
        const read = async () => {
          for (; !refused || reads < 3; reads++) await assertReads(device.path, good.disk);
        };
        await Promise.all([attach, read()]);
      });
      assert.equal(kills, 0, `${kills} processes were killed`);
      await setTimeout(1000);
      const grownMiB = residentMiB(daemon.pid) - beforeMiB;
      assert.ok(grownMiB < 128, `${grownMiB} MiB are not given back`);
      const sentMiB = hostile.sentBytes / 2 ** 20;
      assert.ok(sentMiB < 128, `${sentMiB} MiB were fetched`);
      await daemon.client.detach('good');
      await daemon.stop();
      return `refused, ${sentMiB.toFixed(0)} MiB fetched, ${reads} reads right, ${grownMiB.toFixed(0)} MiB more than before`;
    } finally {
      await daemon.end('SIGTERM');
      await hostile.stop();
      await registry.close();
    }
  },
  { skip: skip ?? noCgroup, timeout: 120_000 },
);

/** Two local layers of a million records, which merge into two million segments. */
function largeIndexConfig(directory: string): string {
  const lowers = [0, 1].map((layer) => {
    const records = Buffer.alloc(RECORDS_MAX * RECORD_BYTES);
    for (let i = 0; i < RECORDS_MAX; i++) {
      const start = 8 * i + 2 * layer;
      const record = { start, end: start + 1, moffset: 8, zeroed: false, tag: 0 };
      encodeRecord(records, i * RECORD_BYTES, record);
    }
    const virtualBytes = RECORDS_MAX * 8 * 512;
    const data = Buffer.alloc(4096, layer + 1);
    const trailer = { flags: 6, indexOffset: 8192, indexEntries: RECORDS_MAX, virtualBytes };
    const file = join(directory, `layer-${layer}`);
    writeFileSync(
      file,
      Buffer.concat([headerBlock({ virtualBytes }), data, records, headerBlock(trailer)]),
    );
    return { file };
  });
  const path = join(directory, 'large.json');
  writeFileSync(path, JSON.stringify({ lowers }));
  return path;
}

trustCase(
  'limits',
  'an image whose indexes take most of index_memory, attached and detached three times',
  'its memory comes back each time',
  async () => {
    const registry = await LoopbackRegistry.start();
    const daemon = await BlockdProcess.start();
    try {
      // Code and heap that the first attach brings stay.
      const small = imageConfig(registry, daemon.directory, 8);
      await daemon.client.attach('small', small.path);
      await daemon.client.detach('small');
      const path = largeIndexConfig(daemon.directory);
      const beforeMiB = residentMiB(daemon.pid);
      const heldMiB: number[] = [];
      const leftMiB: number[] = [];
      for (let turn = 0; turn < 3; turn++) {
        await daemon.client.attach('large', path);
        heldMiB.push(Math.round(residentMiB(daemon.pid) - beforeMiB));
        await daemon.client.detach('large');
        await setTimeout(1000);
        leftMiB.push(Math.round(residentMiB(daemon.pid) - beforeMiB));
      }
      assert.ok(Math.min(...heldMiB) > 40, `held: ${heldMiB} MiB`);
      assert.ok(Math.max(...leftMiB) < 30, `held: ${heldMiB} MiB, left: ${leftMiB} MiB`);
      await daemon.stop();
      return `${heldMiB.join(', ')} MiB while attached, ${leftMiB.join(', ')} MiB a second after`;
    } finally {
      await daemon.end('SIGTERM');
      await registry.close();
    }
  },
  { skip, timeout: 60_000 },
);

trustCase(
  'limits',
  'the cache directory is removed under the daemon',
  'the open image goes on, and an image of another registry attaches',
  async () => {
    const registry = await LoopbackRegistry.start();
    const second = await LoopbackRegistry.start();
    const daemon = await BlockdProcess.start();
    try {
      const one = imageConfig(registry, daemon.directory, 6);
      const device = await daemon.client.attach('one', one.path);
      rmSync(join(daemon.stateDirectory, 'cache'), { recursive: true });
      await assertReads(device.path, one.disk);
      const two = imageConfig(second, daemon.directory, 7);
      const other = await daemon.client.attach('two', two.path);
      await assertReads(other.path, two.disk);
      await assertReads(device.path, one.disk);
      assert.ok(existsSync(join(daemon.stateDirectory, 'cache')), 'nothing is cached again');
      await daemon.client.detach('one');
      await daemon.client.detach('two');
      await daemon.stop();
      return 'both images right, the directory is there again';
    } finally {
      await daemon.end('SIGTERM');
      await registry.close();
      await second.close();
    }
  },
  { skip, timeout: 60_000 },
);

/**
 * Goal: processes that use a device of obd-blockd notice the daemon's deaths only as a delay; nothing stays of devices
 * that were attached or detached as it died; and no resource grows with the number of past devices.
 * Method: the real daemon, set to one transport, with an image of local layers, killed under fio, OBD_KILLS times, and
 * a tenth as often at random moments of attach and detach; OBD_CYCLES devices one after the other; a container that
 * reads throughout. All with one daemon, as far as possible: it takes a while to start under emulation.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { READ_AHEAD_KIB } from '../../src/blockdev/read-ahead.js';
import type { TransportName } from '../../src/blockdev/transport.js';
import { layerOf } from '../support/block-image.js';
import { BlockdProcess } from '../support/blockd-process.js';
import { FioLoad, prepareFile } from '../support/fio-load.js';
import { kernelObjects } from '../support/kernel-transports.js';
import { until } from '../support/transport-under-test.js';
import { pagesOf } from '../support/virtual-disks.js';

const run = promisify(execFile);
/** A start takes several times as long as that of a process with only a transport. */
const KILLS = Number(process.env['OBD_KILLS'] ?? 1);
const KILLS_MIDWAY = Math.ceil(KILLS / 10);
/** Less than a pass of fio lasts. */
const UNDER_LOAD_MS = 300;
const CYCLES = Number(process.env['OBD_CYCLES'] ?? 20);
const DISK_BYTES = 4 << 20;
/** Caches of the runtime fill up in the first cycles. */
const WARM_UP_CYCLES = 5;
/** Later, memory varies by 3 MiB up or down. A device that stays takes 2.7 MiB. */
const GROWTH_BYTES_MAX = (CYCLES < 20 ? 16 : 32) << 20;
const ATTACH_MS = 600;
/** Size of the file that the container reads. */
const DATA_BYTES = 2 << 20;

/** Two layers that add up to the disk, as an image of the daemon's. @returns The image's config. */
async function makeImage(daemon: BlockdProcess, name: string, disk: Buffer): Promise<string> {
  const half = disk.length / 4096 / 2;
  const halves = [(page: number) => page < half, (page: number) => page >= half];
  const lowers = halves.map(async (chosen, i) => {
    const file = join(daemon.directory, `${name}-${i}`);
    await writeFile(file, layerOf(disk, chosen));
    return { file };
  });
  const configPath = join(daemon.directory, `${name}.json`);
  await writeFile(configPath, JSON.stringify({ lowers: await Promise.all(lowers) }));
  return configPath;
}

async function restart(daemon: BlockdProcess): Promise<void> {
  await daemon.end('SIGKILL');
  await daemon.restart();
}

/** @param missing - Why this host cannot run it. */
export function daemonKills(name: TransportName, missing: string | undefined): void {
  const skip = missing === undefined ? {} : { skip: missing };
  const timeout = 180_000 + KILLS * 60_000 + CYCLES * 10_000;
  const check = (what: string, body: (t: TestContext) => Promise<void>) =>
    test(`${name}: ${what}`, { timeout, ...skip }, body);
  let daemon: BlockdProcess;
  let objects: string[];
  let isStopped = missing !== undefined;

  after(async () => {
    if (isStopped) return;
    for (const { id } of await daemon.client.list().catch(() => [])) {
      await daemon.client.detach(id).catch(() => {});
    }
    await daemon.end('SIGTERM');
  });

  check('the daemon starts', async () => {
    daemon = await BlockdProcess.start(`transport = "${name}"\n`);
    objects = await kernelObjects(name, daemon.directory);
  });

  check('the daemon is killed under load', async (t) => {
    const folder = await mkdtemp('/var/tmp/obd-load-');
    t.after(() => rm(folder, { recursive: true }));
    await prepareFile(join(folder, 'disk'), DISK_BYTES);
    const configPath = await makeImage(daemon, 'load', await readFile(join(folder, 'disk')));
    const { path } = await daemon.client.attach('loaded', configPath);
    const load = new FioLoad(path, folder, DISK_BYTES, { writes: false });
    for (let i = 0; i < KILLS; i++) {
      await load.flows();
      await sleep(Math.random() * UNDER_LOAD_MS);
      await restart(daemon);
      assert.equal((await daemon.client.attach('loaded', configPath)).path, path);
    }
    const { requests, longestStallMs } = await load.finish();
    t.diagnostic(
      `${KILLS} kills, ${requests} reads, 0 errors, 0 mismatches, longest stall ${longestStallMs} ms`,
    );
    await daemon.client.detach('loaded');
    assert.deepEqual(await kernelObjects(name, daemon.directory), objects);
  });

  check('readahead of a device is set when it is attached and when it is recovered', async () => {
    const configPath = await makeImage(daemon, 'ahead', pagesOf(1 << 20));
    const { path } = await daemon.client.attach('ahead', configPath);
    const file = `/sys/block/${basename(path)}/queue/read_ahead_kb`;
    assert.equal(await readFile(file, 'utf8'), `${READ_AHEAD_KIB}\n`);
    await writeFile(file, '4096');
    await restart(daemon);
    await daemon.client.attach('ahead', configPath);
    assert.equal(await readFile(file, 'utf8'), `${READ_AHEAD_KIB}\n`);
    await daemon.client.detach('ahead');
  });

  for (const when of ['attach', 'detach'] as const) {
    check(`the daemon is killed in the middle of ${when}`, async (t) => {
      const configPath = await makeImage(daemon, 'small', pagesOf(1 << 20));
      let whole = 0;
      for (let i = 0; i < KILLS_MIDWAY; i++) {
        if (when === 'detach') await daemon.client.attach('victim', configPath);
        const call =
          when === 'attach'
            ? daemon.client.attach('victim', configPath)
            : daemon.client.detach('victim');
        call.catch(() => {});
        await sleep(Math.random() * ATTACH_MS);
        await restart(daemon);
        whole += (await daemon.client.list()).length;
        await readThrough(await daemon.client.attach('victim', configPath));
        await daemon.client.detach('victim');
        assert.deepEqual(daemon.debris(), []);
        assert.deepEqual(await kernelObjects(name, daemon.directory), objects);
      }
      t.diagnostic(`${KILLS_MIDWAY} kills, ${whole} whole devices left`);
    });
  }

  check(`${CYCLES} devices come and go`, async (t) => {
    const configPath = await makeImage(daemon, 'small', pagesOf(1 << 20));
    const cycle = async () => {
      await readThrough(await daemon.client.attach('cycle', configPath));
      await daemon.client.detach('cycle');
    };
    for (let i = 0; i < WARM_UP_CYCLES; i++) await cycle();
    const files = await openFiles(daemon.pid);
    const memory = await residentBytes(daemon.pid);
    for (let i = 0; i < CYCLES; i++) await cycle();
    assert.deepEqual(await kernelObjects(name, daemon.directory), objects);
    assert.deepEqual(await openFiles(daemon.pid), files);
    const grown = (await residentBytes(daemon.pid)) - memory;
    t.diagnostic(
      `${files.length} files open as before, ${Math.round(grown / 1024)} KiB more memory`,
    );
    assert.ok(grown < GROWTH_BYTES_MAX);
  });

  check('a container runs on while the daemon dies', async (t) => {
    const folder = await mkdtemp('/var/tmp/obd-bundle-');
    t.after(() => rm(folder, { recursive: true }));
    const configPath = await makeImage(daemon, 'root', await rootDisk(folder));
    const { path } = await daemon.client.attach('root', configPath);
    const rootfs = await mountRoot(t, path, folder);
    const container = spawn('runc', ['run', '--bundle', folder, `obd-${process.pid}-${name}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let words = '';
    container.stdout.setEncoding('utf8').on('data', (text: string) => {
      words += text;
    });
    const ended = once(container, 'close');
    await until(() => words.includes('started'));
    await restart(daemon);
    await writeFile(join(rootfs, 'stop'), '');
    assert.deepEqual(await ended, [0, null], words);
    const sums = words.trimEnd().split('\n').slice(1);
    const expected = createHash('md5').update(pagesOf(DATA_BYTES)).digest('hex');
    assert.deepEqual([...new Set(sums)], [`${expected}  -`]);
    for (const each of ['rootfs', 'upper', 'lower']) await run('umount', [join(folder, each)]);
    await daemon.client.detach('root');
  });

  check('the daemon ends, and leaves nothing', async () => {
    await daemon.stop();
    isStopped = true;
    assert.deepEqual(await kernelObjects(name, daemon.directory), objects);
  });
}

async function readThrough({ path }: { readonly path: string }): Promise<void> {
  await run('dd', [`if=${path}`, 'of=/dev/null', 'bs=64k', 'iflag=direct', 'status=none']);
}

/** An ext4 with a shell, and a file that it can read again and again. */
async function rootDisk(folder: string): Promise<Buffer> {
  const content = join(folder, 'content');
  await mkdir(join(content, 'bin'), { recursive: true });
  for (const name of ['dev', 'proc', 'sys']) await mkdir(join(content, name));
  const { stdout } = await run('sh', ['-c', 'command -v busybox']);
  await copyFile(stdout.trim(), join(content, 'bin/busybox'));
  await writeFile(join(content, 'data'), pagesOf(DATA_BYTES));
  const image = join(folder, 'image');
  await run('mke2fs', ['-q', '-t', 'ext4', '-O', '^has_journal', '-d', content, image, '16M']);
  return await readFile(image);
}

/** Mounts the device, an overlay over it, and writes the bundle of a container that reads until /stop is there. */
async function mountRoot(t: TestContext, path: string, folder: string): Promise<string> {
  const lower = join(folder, 'lower');
  const upper = join(folder, 'upper');
  const rootfs = join(folder, 'rootfs');
  for (const each of [lower, upper, rootfs]) await mkdir(each);
  t.after(async () => {
    for (const each of [rootfs, upper, lower])
      await run('umount', ['--lazy', each]).catch(() => {});
  });
  await run('mount', ['-o', 'ro', path, lower]);
  // Overlayfs writes to no overlayfs, which the folder may be on.
  await run('mount', ['-t', 'tmpfs', 'tmpfs', upper]);
  for (const each of ['files', 'work']) await mkdir(join(upper, each));
  const layers = `lowerdir=${lower},upperdir=${upper}/files,workdir=${upper}/work`;
  await run('mount', ['-t', 'overlay', '-o', layers, 'overlay', rootfs]);
  await run('runc', ['spec', '--bundle', folder]);
  const specPath = join(folder, 'config.json');
  const spec = JSON.parse(await readFile(specPath, 'utf8'));
  const script = [
    'echo started',
    'until [ -e /stop ]; do dd if=/data bs=64k iflag=direct 2>/dev/null | md5sum; done',
    'dd if=/data bs=64k iflag=direct 2>/dev/null | md5sum',
  ].join('; ');
  spec.process.terminal = false;
  spec.process.args = ['/bin/busybox', 'sh', '-c', `alias dd='busybox dd'; ${script}`];
  spec.root.readonly = false;
  await writeFile(specPath, JSON.stringify(spec));
  return rootfs;
}

/** The target of each descriptor of a process, without the numbers that differ from one to the next. */
async function openFiles(pid: number): Promise<string[]> {
  const folder = `/proc/${pid}/fd`;
  const names = (await readdir(folder)).map((fd) => readlink(`${folder}/${fd}`).catch(() => ''));
  const kinds = (await Promise.all(names)).map((name) => name.replace(/\d+/g, 'N'));
  return kinds.filter((kind) => kind !== '').sort();
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

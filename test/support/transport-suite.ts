/**
 * The requirements for every transport, as tests: call transportSuite() from the test of each. They make real block
 * devices, so they need root and the transport's own requirements.
 */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, open, readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { TransportName } from '../../src/blockdev/transport.js';
import { ErrorCodes } from '../../src/errors.js';
import { watchBy } from './kernel-transports.js';
import { killChecks } from './transport-kills.js';
import { survivalChecks } from './transport-survival.js';
import { type Check, pageOf, readPage, type StartTransport } from './transport-under-test.js';
import { writeChecks, writeRefusalChecks } from './transport-writes.js';
import { MemoryDisk, pagesOf, WaitingDisk } from './virtual-disks.js';

export type { TransportUnderTest } from './transport-under-test.js';

const run = promisify(execFile);
const CYCLES = Number(process.env['OBD_CYCLES'] ?? 20);

/**
 * @param start - Makes a new transport for one test, and removes it afterwards.
 * @param skip - Why this host cannot run it, if it cannot.
 */
export function transportSuite(
  name: TransportName,
  skip: string | undefined,
  start: StartTransport,
): void {
  const { write } = watchBy(name, '/nowhere').capabilities;
  const options = skip === undefined ? {} : { skip };
  const check: Check = (what, body) => void test(`${name}: ${what}`, options, body);

  check(
    'a device has the bytes of its disk, also where the last page is a part of one',
    async (t) => {
      const { transport, leftovers } = await start(t);
      const bytes = pagesOf((3 << 20) + 512);
      bytes.fill(0, 65536, 1 << 20);
      const device = await transport.attach('a-disk', new MemoryDisk(bytes));
      const { stdout } = await run('sha256sum', [device.path]);
      assert.equal(stdout.slice(0, 64), sha256(bytes));
      await device.detach();
      assert.deepEqual(await leftovers(), []);
    },
  );

  check('a device is read-only', async (t) => {
    const { transport } = await start(t);
    const device = await transport.attach('ro', new MemoryDisk(pagesOf(1 << 20)));
    assert.equal((await run('blockdev', ['--getro', device.path])).stdout, '1\n');
    await device.detach();
  });

  check('several devices are separate, and detach in any order', async (t) => {
    const { transport, leftovers } = await start(t);
    const disks = [1, 2, 3, 4].map((i) => pagesOf(i << 20));
    const devices = await Promise.all(
      disks.map((bytes, i) => transport.attach(`disk-${i}`, new MemoryDisk(bytes))),
    );
    assert.equal(new Set(devices.map(({ path }) => path)).size, disks.length);
    for (const [i, { path }] of devices.entries()) {
      const { stdout } = await run('sha256sum', [path]);
      assert.equal(stdout.slice(0, 64), sha256(disks[i]!));
    }
    await devices[2]!.detach();
    await Promise.all(devices.map((device) => device.detach()));
    assert.deepEqual(await leftovers(), []);
  });

  check('detach() called again, also concurrently, resolves', async (t) => {
    const { transport, leftovers } = await start(t);
    const device = await transport.attach('again', new MemoryDisk(pagesOf(1 << 20)));
    await Promise.all([device.detach(), device.detach()]);
    await device.detach();
    assert.deepEqual(await leftovers(), []);
    await (await transport.attach('again', new MemoryDisk(pagesOf(1 << 20)))).detach();
  });

  check('attach() refuses an attached id with Busy, and an invalid id', async (t) => {
    const { transport } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await transport.attach('twice', disk);
    await assert.rejects(transport.attach('twice', disk), { code: ErrorCodes.Busy });
    for (const id of ['', '.', '..', '.x', 'a/b', 'x'.repeat(65)]) {
      await assert.rejects(transport.attach(id, disk), { code: ErrorCodes.InvalidArgument });
      await assert.rejects(transport.resume(id, disk), { code: ErrorCodes.InvalidArgument });
      await assert.rejects(transport.clear(id), { code: ErrorCodes.InvalidArgument });
    }
    assert.equal((await run('sha256sum', [device.path])).stdout.slice(0, 64), sha256(disk.bytes));
    await device.detach();
  });

  check('an id of the greatest length names a device', async (t) => {
    const { transport, leftovers } = await start(t);
    const device = await transport.attach('x'.repeat(64), new MemoryDisk(pagesOf(1 << 20)));
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('a read that waits for its bytes delays no other device', async (t) => {
    const { transport, leftovers } = await start(t);
    const slow = new WaitingDisk(pagesOf(4 << 20), 1 << 20);
    const device = await transport.attach('slow', slow);
    const read = readPage(device.path, 2 << 20);
    const quick = await transport.attach('quick', new MemoryDisk(pagesOf(1 << 20)));
    const { stdout } = await run('sha256sum', [quick.path]);
    assert.equal(stdout.slice(0, 64), sha256(pagesOf(1 << 20)));
    await quick.detach();
    slow.arrive();
    assert.deepEqual(await read, pageOf(slow, 2 << 20));
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('detach() of a mounted device fails with Busy and changes nothing', async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const image = join(folder, 'ext4');
    const content = join(folder, 'content');
    await mkdir(content);
    await writeFile(join(content, 'file'), pagesOf(1 << 20));
    await run('mke2fs', ['-q', '-t', 'ext4', '-d', content, image, '8M']);
    const device = await transport.attach('mounted', new MemoryDisk(await readFile(image)));
    const mountPoint = join(folder, 'mnt');
    await mkdir(mountPoint);
    await run('mount', ['-o', 'ro', device.path, mountPoint]);
    try {
      await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
      assert.deepEqual(await readFile(join(mountPoint, 'file')), pagesOf(1 << 20));
    } finally {
      await run('umount', [mountPoint]);
    }
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check(
    'detach() of a device that another process has open fails with Busy and changes nothing',
    async (t) => {
      const { transport } = await start(t);
      const device = await transport.attach('open', new MemoryDisk(pagesOf(1 << 20)));
      const holder = spawn('sh', ['-c', 'exec 3<"$0"; echo; exec sleep 60', device.path]);
      await once(holder.stdout, 'data');
      await assert.rejects(device.detach(), { code: ErrorCodes.Busy });
      const { stdout } = await run('sha256sum', [device.path]);
      assert.equal(stdout.slice(0, 64), sha256(pagesOf(1 << 20)));
      holder.kill('SIGKILL');
      await once(holder, 'exit');
      await device.detach();
    },
  );

  check(
    'attach() of a disk whose first bytes cannot be read fails, and leaves nothing',
    async (t) => {
      const { transport, leftovers } = await start(t);
      const disk = new WaitingDisk(pagesOf(1 << 20));
      disk.fail();
      await assert.rejects(transport.attach('failing', disk), {
        code: ErrorCodes.Unavailable,
        message: /the registry is away/,
      });
      assert.deepEqual(await leftovers(), []);
    },
  );

  check('a read that fails later gets EIO, and other reads of the device succeed', async (t) => {
    const { transport } = await start(t);
    const disk = new WaitingDisk(pagesOf(4 << 20), 1 << 20);
    disk.fail();
    const device = await transport.attach('partly', disk);
    const file = await open(device.path);
    const page = Buffer.alloc(4096);
    await assert.rejects(file.read(page, 0, page.length, 3 << 20), { code: 'EIO' });
    await file.read(page, 0, page.length, 512 << 10);
    assert.deepEqual(page, Buffer.from(disk.bytes.subarray(512 << 10, (512 << 10) + 4096)));
    await file.close();
    await device.detach();
  });

  check('fio verifies in a read-only device the data that it wrote to the file', async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const verify = [
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--ioengine=libaio',
      '--iodepth=16',
    ];
    const image = join(folder, 'image');
    const job = ['--name=v', '--size=16M', '--bs=4k', '--randseed=1', ...verify];
    await run('fio', [...job, `--filename=${image}`, '--rw=randwrite', '--do_verify=0']);
    const device = await transport.attach('verified', new MemoryDisk(await readFile(image)));
    const how = ['--rw=randread', '--direct=1', '--readonly'];
    await run('fio', [...job, `--filename=${device.path}`, ...how]);
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('unavailableReason() is undefined where the transport runs', async (t) => {
    assert.equal(await (await start(t)).transport.unavailableReason(), undefined);
  });

  check('attach() refuses a size that is no multiple of a sector, or rounds it down', async (t) => {
    const { transport, leftovers } = await start(t);
    try {
      const device = await transport.attach('odd', new MemoryDisk(pagesOf((1 << 20) + 1000)));
      const { stdout } = await run('blockdev', ['--getsize64', device.path]);
      assert.equal(Number(stdout), (1 << 20) + 512);
      await device.detach();
    } catch (error) {
      assert.equal((error as { code?: unknown }).code, ErrorCodes.InvalidArgument);
    }
    assert.deepEqual(await leftovers(), []);
  });

  check(`attached and detached ${CYCLES} times, a device leaves nothing`, async (t) => {
    const { transport, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const cycle = async () => await (await transport.attach('cycle', disk)).detach();
    // Descriptors that a process opens once.
    await cycle();
    const before = await openFiles();
    for (let i = 0; i < CYCLES; i++) await cycle();
    assert.deepEqual(await openFiles(), before);
    assert.deepEqual(await leftovers(), []);
  });

  survivalChecks(check, start);
  killChecks(name, check, start, { writable: write });
  if (write) writeChecks(check, start);
  else writeRefusalChecks(check, start);
}

/** The target of each descriptor of this process, without the numbers that differ from one to the next. */
async function openFiles(): Promise<string[]> {
  const names = (await readdir('/proc/self/fd')).map((fd) =>
    readlink(`/proc/self/fd/${fd}`).catch(() => ''),
  );
  const kinds = (await Promise.all(names)).map((name) => name.replace(/\d+/g, 'N'));
  return kinds.filter((kind) => kind !== '').sort();
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

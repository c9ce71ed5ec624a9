/** The part of the transport suite about writable disks: every write to a device arrives in the disk. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { ErrorCodes } from '../../src/errors.js';
import { FileDisk } from './file-disk.js';
import type { Check, StartTransport } from './transport-under-test.js';
import { pagesOf } from './virtual-disks.js';

const run = promisify(execFile);
const DISK_BYTES = 32 << 20;
const MIB = 1 << 20;
const FIO_VERIFY = [
  '--verify=crc32c',
  '--verify_fatal=1',
  '--verify_state_save=0',
  '--ioengine=libaio',
  '--iodepth=16',
];

export function writeChecks(check: Check, start: StartTransport): void {
  check('data that were written and flushed are in the disk', async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const disk = await fileDisk(t, folder, 0);
    const device = await transport.attach('written', disk);
    assert.equal((await run('blockdev', ['--getro', device.path])).stdout, '0\n');
    const bytes = pagesOf(MIB);
    const file = await open(device.path, 'r+');
    await file.write(bytes, 0, bytes.length, 4096 + 512);
    await file.sync();
    await file.close();
    assert.ok(disk.counts.flushes > 0);
    const expected = Buffer.alloc(DISK_BYTES);
    expected.set(bytes, 4096 + 512);
    assert.ok(expected.equals(await readFile(disk.label)));
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  for (const [name, args] of Object.entries({ discarded: [], zeroed: ['--zeroout'] })) {
    check(`a ${name} range is zeroes in the disk`, async (t) => {
      const { transport, folder, leftovers } = await start(t);
      const disk = await fileDisk(t, folder, DISK_BYTES);
      const device = await transport.attach(name, disk);
      const range = ['--offset', String(8 * MIB), '--length', String(3 * MIB)];
      await run('blkdiscard', [...args, ...range, device.path]);
      // A kernel whose driver lacks "write zeroes" writes them as data.
      assert.ok(disk.counts.zeroes > 0 || (name === 'zeroed' && disk.counts.writes > 0));
      const expected = pagesOf(DISK_BYTES).fill(0, 8 * MIB, 11 * MIB);
      assert.ok(expected.equals(await readFile(disk.label)));
      const { stdout } = await run('sha256sum', [device.path]);
      assert.equal(stdout.slice(0, 64), createHash('sha256').update(expected).digest('hex'));
      await device.detach();
      assert.deepEqual(await leftovers(), []);
    });
  }

  check('a file system on the device keeps its files, also after a trim', async (t) => {
    const { transport, folder, again, leftovers } = await start(t);
    const disk = await fileDisk(t, folder, 0);
    const device = await transport.attach('ext4', disk);
    await run('mkfs.ext4', ['-q', device.path]);
    const file = await onMount(device.path, folder, async (mountPoint) => {
      const path = join(mountPoint, 'file');
      await run('fio', [
        '--name=w',
        `--filename=${path}`,
        '--size=8M',
        '--bsrange=512-64k',
        ...FIO_VERIFY,
        '--rw=randwrite',
        '--direct=1',
        '--fsync=64',
      ]);
      await run('fstrim', [mountPoint]);
      return await readFile(path);
    });
    assert.ok(disk.counts.zeroes > 0);
    await device.release();
    const resumed = await again().resume('ext4', disk);
    const found = await onMount(resumed.path, folder, (mountPoint) =>
      readFile(join(mountPoint, 'file')),
    );
    assert.ok(found.equals(file));
    await resumed.detach();
    await run('e2fsck', ['-fn', disk.label]);
    assert.deepEqual(await leftovers(), []);
  });
}

/** For a transport whose devices cannot be written. */
export function writeRefusalChecks(check: Check, start: StartTransport): void {
  check('attach() refuses a WritableDisk', async (t) => {
    const { transport, folder, leftovers } = await start(t);
    const disk = await fileDisk(t, folder, 0);
    await assert.rejects(transport.attach('written', disk), { code: ErrorCodes.Unsupported });
    assert.deepEqual(await leftovers(), []);
  });
}

/** A writable disk of which so many bytes are not zero. */
async function fileDisk(t: TestContext, folder: string, filledBytes: number): Promise<FileDisk> {
  const path = join(folder, 'disk');
  await writeFile(path, pagesOf(filledBytes));
  await truncate(path, DISK_BYTES);
  const disk = new FileDisk(path);
  t.after(() => disk.close());
  return disk;
}

async function onMount<T>(
  path: string,
  folder: string,
  body: (mountPoint: string) => Promise<T>,
): Promise<T> {
  const mountPoint = join(folder, 'mnt');
  await mkdir(mountPoint, { recursive: true });
  await run('mount', [path, mountPoint]);
  try {
    return await body(mountPoint);
  } finally {
    await run('umount', [mountPoint]);
  }
}

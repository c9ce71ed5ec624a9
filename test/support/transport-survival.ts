/**
 * The part of the transport suite about devices that outlive their server. One transport object releases, another on
 * the same directory continues: the kernel sees two processes in the same way. Real killed processes are in
 * test/transports.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes } from '../../src/errors.js';
import {
  type Check,
  pageOf,
  readPage,
  type StartTransport,
  until,
} from './transport-under-test.js';
import { MemoryDisk, pagesOf, WaitingDisk } from './virtual-disks.js';

/** Time for a read to arrive in the kernel, which no interface shows. */
const ARRIVAL_MS = 500;

export function survivalChecks(check: Check, start: StartTransport): void {
  check('the next server answers a read that was in flight at release()', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const disk = new WaitingDisk(pagesOf(4 << 20), 1 << 20);
    const device = await transport.attach('flight', disk);
    const read = readPage(device.path, 2 << 20);
    await until(() => disk.loads > 0);
    const released = device.release();
    // It may wait for its request to the disk, whose answer may not reach the reader any more.
    await Promise.race([released, sleep(ARRIVAL_MS)]);
    disk.fail();
    await released;
    const next = again();
    assert.deepEqual(await next.orphans(), [{ id: 'flight', path: device.path }]);
    const resumed = await next.resume('flight', new MemoryDisk(disk.bytes));
    assert.equal(resumed.path, device.path);
    assert.deepEqual(await read, pageOf(disk, 2 << 20));
    assert.deepEqual(await next.orphans(), []);
    await resumed.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('a read that begins without a server waits for the next one', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(4 << 20));
    let device = await transport.attach('waits', disk);
    for (let round = 0; round < 3; round++) {
      await device.release();
      let isAnswered = false;
      const read = readPage(device.path, round << 20).finally(() => {
        isAnswered = true;
      });
      await sleep(ARRIVAL_MS);
      assert.equal(isAnswered, false);
      device = await again().resume('waits', disk);
      assert.deepEqual(await read, pageOf(disk, round << 20));
    }
    await device.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('release() called again, also while another server serves, resolves', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await transport.attach('released', disk);
    await Promise.all([device.release(), device.release()]);
    const resumed = await again().resume('released', disk);
    await device.release();
    assert.deepEqual(await readPage(resumed.path, 4096), pageOf(disk, 4096));
    await resumed.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('release() called twice does not release the id of the next device', async (t) => {
    const { transport, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await transport.attach('twice', disk);
    await device.release();
    const next = await transport.resume('twice', disk);
    await device.release();
    assert.deepEqual(await transport.orphans(), []);
    await assert.rejects(transport.clear('twice'), { code: ErrorCodes.Busy });
    await assert.rejects(device.detach(), { code: ErrorCodes.FailedPrecondition });
    assert.deepEqual(await readPage(next.path, 4096), pageOf(disk, 4096));
    await next.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('clear() removes an orphan that is not in use', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const device = await transport.attach('unwanted', new MemoryDisk(pagesOf(1 << 20)));
    await device.release();
    const next = again();
    await next.clear('unwanted');
    await next.clear('unwanted');
    assert.deepEqual(await next.orphans(), []);
    assert.deepEqual(await leftovers(), []);
    await (await next.attach('unwanted', new MemoryDisk(pagesOf(2 << 20)))).detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('clear() leaves an orphan that is open', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await transport.attach('open', disk);
    const holder = spawn('sh', ['-c', 'exec 3<"$0"; echo; exec sleep 60', device.path]);
    t.after(() => holder.kill('SIGKILL'));
    await once(holder.stdout, 'data');
    await device.release();
    const next = again();
    await assert.rejects(next.clear('open'), { code: ErrorCodes.Busy });
    const resumed = await next.resume('open', disk);
    assert.deepEqual(await readPage(resumed.path, 8192), pageOf(disk, 8192));
    const ended = once(holder, 'exit');
    holder.kill('SIGKILL');
    await ended;
    await resumed.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('resume() refuses an unknown id and a disk of another size', async (t) => {
    const { transport, again, leftovers } = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await transport.attach('same', disk);
    await device.release();
    const next = again();
    await assert.rejects(next.resume('none', disk), { code: ErrorCodes.NotFound });
    await assert.rejects(next.resume('same', new MemoryDisk(pagesOf(2 << 20))), {
      code: ErrorCodes.FailedPrecondition,
    });
    const resumed = await next.resume('same', disk);
    assert.deepEqual(await readPage(resumed.path, 12288), pageOf(disk, 12288));
    await resumed.detach();
    assert.deepEqual(await leftovers(), []);
  });

  check('a daemon lists, resumes and clears no orphan of another daemon', async (t) => {
    const one = await start(t);
    const other = await start(t);
    const disk = new MemoryDisk(pagesOf(1 << 20));
    const device = await one.transport.attach('shared-name', disk);
    await device.release();
    assert.deepEqual(await other.transport.orphans(), []);
    await other.transport.clear('shared-name');
    await assert.rejects(other.transport.resume('shared-name', disk), {
      code: ErrorCodes.NotFound,
    });
    const own = await other.transport.attach('shared-name', disk);
    assert.notEqual(own.path, device.path);
    const resumed = await one.again().resume('shared-name', disk);
    assert.equal(resumed.path, device.path);
    await own.detach();
    await resumed.detach();
    assert.deepEqual(await one.leftovers(), []);
  });
}

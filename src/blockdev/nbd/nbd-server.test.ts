/**
 * Goal: only its owner can open the socket, and it never replaces that of a server that answers; real clients read
 * exactly the disk; no client can keep the server from serving others; exports and servers end without leaving anything.
 * Method: real sockets. Clients of the protocol are libnbd's and qemu's programs; hostile ones are bytes.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { exportDisk } from '../../../test/support/exported-disk.js';
import {
  CLIENT_FLAGS,
  GREETING,
  infoData,
  option,
  request,
} from '../../../test/support/nbd-bytes.js';
import { runClient } from '../../../test/support/run-client.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { NbdServer } from './nbd-server.js';

const run = promisify(execFile);
const bytes = pagesOf((3 << 20) + 512);
bytes.fill(0, 1 << 20, (1 << 20) + 300_000);
const disk = new MemoryDisk(bytes);
let folder: string;
let path: string;
let server: NbdServer;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'obd-nbd-'));
  path = join(folder, 'nbd.sock');
  server = await NbdServer.listen(path);
  exportDisk(server, 'disk', disk);
});
after(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const uriOf = (name: string) => `nbd+unix:///${name}?socket=${path}`;

/** A connection that has picked an export and read what there is to read until then. */
async function enter(name: string): Promise<Socket> {
  const socket = connect(path);
  socket.on('error', () => {});
  socket.write(Buffer.concat([CLIENT_FLAGS, option(7, infoData(name))]));
  let missing = GREETING.length + 32 + 20;
  while (missing > 0) {
    const [piece] = (await once(socket, 'data')) as [Buffer];
    missing -= piece.length;
  }
  return socket;
}

/** Resolves when it is hung up on, however; errors are part of that. */
function closed(socket: Socket): Promise<void> {
  socket.on('error', () => {});
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** Whether a new client is answered soon. */
async function assertServing(): Promise<void> {
  const socket = await enter('disk');
  socket.write(request({ command: 0, cookie: 1, offset: 512, length: 64 }));
  const [reply] = (await once(socket, 'data', { signal: AbortSignal.timeout(2000) })) as [Buffer];
  assert.deepEqual(reply.subarray(16), bytes.subarray(512, 576));
  socket.destroy();
}

test('the socket is for its owner alone, and is not taken from a server that answers', async () => {
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  await assert.rejects(NbdServer.listen(path), { code: ErrorCodes.Busy });
  await assertServing();
});

test('the socket of a server that died is replaced, and gone after close()', async () => {
  const stale = join(folder, 'stale.sock');
  await run(process.execPath, [
    '--eval',
    `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`,
  ]).catch(() => {});
  assert.ok((await stat(stale)).isSocket());
  const second = await NbdServer.listen(stale);
  await second.close();
  await second.close();
  await assert.rejects(stat(stale), { code: 'ENOENT' });
});

test('addExport() refuses a taken, empty or too long name', () => {
  assert.throws(() => exportDisk(server, 'disk', disk), { code: ErrorCodes.AlreadyExists });
  assert.throws(() => exportDisk(server, '', disk), { code: ErrorCodes.InvalidArgument });
  assert.throws(() => exportDisk(server, 'x'.repeat(4097), disk), {
    code: ErrorCodes.InvalidArgument,
  });
});

test('nbdinfo sees the size, the flags, the block sizes and the holes', async (t) => {
  const text = await runClient(t, 'nbdinfo', ['--json', uriOf('disk')]);
  if (text === undefined) return;
  const [info] = JSON.parse(text).exports;
  assert.equal(info['export-size'], bytes.length);
  assert.deepEqual(
    [info.is_read_only, info.can_multi_conn, info.can_flush, info.can_trim, info.can_df],
    [true, true, true, false, true],
  );
  assert.deepEqual(
    [info.block_size_minimum, info.block_size_preferred, info.block_size_maximum],
    [1, 4096, 32 << 20],
  );
  const map = JSON.parse((await runClient(t, 'nbdinfo', ['--map', '--json', uriOf('disk')]))!);
  assert.deepEqual(
    map.map((extent: { offset: number; type: number }) => [extent.offset, extent.type]),
    [
      [0, 0],
      [1 << 20, 3],
      [(1 << 20) + 299_520, 0],
    ],
  );
});

test('nbdcopy over several connections gets exactly the disk', async (t) => {
  const copy = join(folder, 'copy');
  await runClient(t, 'nbdcopy', ['--connections=4', uriOf('disk'), copy]);
  if (t.signal.aborted) return;
  const raw = join(folder, 'raw');
  await writeFile(raw, bytes);
  await runClient(t, 'cmp', [raw, copy]);
});

test('qemu-img finds no difference', async (t) => {
  const raw = join(folder, 'raw');
  await writeFile(raw, bytes);
  await runClient(t, 'qemu-img', ['compare', '-f', 'raw', '-F', 'raw', uriOf('disk'), raw]);
});

test('a failed read is reported once, with its place', async () => {
  const waiting = new WaitingDisk(bytes);
  const failures: [number, number][] = [];
  const nbdExport = exportDisk(server, 'failing', waiting, (_, offset, length) =>
    failures.push([offset, length]),
  );
  waiting.fail();
  const socket = await enter('failing');
  socket.write(request({ command: 0, cookie: 1, offset: 1024, length: 64 }));
  const [reply] = (await once(socket, 'data')) as [Buffer];
  assert.equal(reply.readUInt32BE(4), 5);
  assert.deepEqual(failures, [[1024, 64]]);
  await nbdExport.remove();
});

test('remove() ends the connections of that export and of no other', async () => {
  const nbdExport = exportDisk(server, 'short-lived', disk);
  const [its, other] = [await enter('short-lived'), await enter('disk')];
  its.write(request({ command: 0, cookie: 1, offset: 0, length: 64 }));
  await once(its, 'data');
  const hungUp = closed(its);
  await Promise.all([nbdExport.remove(), nbdExport.remove()]);
  await hungUp;
  other.write(request({ command: 0, cookie: 1, offset: 0, length: 64 }));
  await once(other, 'data');
  other.destroy();
  await exportDisk(server, 'short-lived', disk).remove();
});

test('remove() waits for the loading read of a client that went away', async () => {
  const waiting = new WaitingDisk(bytes);
  const nbdExport = exportDisk(server, 'left', waiting);
  const socket = await enter('left');
  socket.write(request({ command: 0, cookie: 1, offset: 0, length: 64 }));
  while (waiting.loads === 0) await sleep(1);
  socket.destroy();
  await sleep(10);
  let removed = false;
  const removal = nbdExport.remove().then(() => {
    removed = true;
  });
  await sleep(10);
  assert.equal(removed, false);
  waiting.arrive();
  await removal;
});

test('the server disconnects hostile clients and serves the others', async () => {
  const garbage = [
    Buffer.alloc(64, 0xff),
    Buffer.concat([CLIENT_FLAGS, Buffer.alloc(64)]),
    Buffer.concat([CLIENT_FLAGS, option(1, Buffer.from('no such export'))]),
    Buffer.concat([CLIENT_FLAGS, option(7, infoData('disk')), Buffer.alloc(28)]),
  ];
  for (const each of garbage) {
    const socket = connect(path);
    socket.resume();
    socket.write(each);
    await closed(socket);
  }
  // Asks for the list again and again, and reads nothing.
  const asker = connect(path);
  const hungUp = closed(asker);
  asker.write(CLIENT_FLAGS);
  const lists = Buffer.concat(Array.from({ length: 4096 }, () => option(3)));
  asker.pause();
  for (let i = 0; i < 20; i++) asker.write(lists);
  await hungUp;
  await assertServing();
});

test('a client that requests much and takes nothing does not affect the others', async () => {
  const greedy = await enter('disk');
  greedy.pause();
  const read = request({ command: 0, cookie: 1, offset: 0, length: 1 << 20 });
  for (let i = 0; i < 1000; i++) greedy.write(read);
  const before = disk.readBytes;
  await sleep(50);
  assert.ok(disk.readBytes - before <= 4 << 20);
  await assertServing();
  greedy.destroy();
});

test('the server disconnects a client that never picks an export', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const silent = connect(path);
  silent.resume();
  await once(silent, 'data');
  const hungUp = closed(silent);
  t.mock.timers.tick(10_000);
  await hungUp;
});

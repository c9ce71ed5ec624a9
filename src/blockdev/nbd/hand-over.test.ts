/**
 * Goal: a disk that another thread has is read as if it were here: no byte of a connection is lost, doubled or hung up on
 * between the threads, connections count until they end, and an export ends with them.
 * Method: real sockets and clients; the other thread is this one, which gets descriptors as other threads
 * do. The real threads are in src/blockd/worker-device-host.test.ts.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { exportDisk } from '../../../test/support/exported-disk.js';
import { CLIENT_FLAGS, infoData, option, request } from '../../../test/support/nbd-bytes.js';
import { runClient } from '../../../test/support/run-client.js';
import { until } from '../../../test/support/transport-under-test.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { DiskConnections } from './disk-connections.js';
import { type HandedConnection, type NbdExport, NbdServer } from './nbd-server.js';
import { ReplyBuffers } from './reply-buffers.js';
import { transmissionFlags } from './transmission-flags.js';

const bytes = pagesOf(8 << 20);
const GREETING_BYTES = 18;
/** The answer to GO: size and flags, and the acknowledgement that ends it. */
const GO_REPLY_BYTES = 32 + 20;
const LISTS = 10_000;
/** As the server has it. */
const CONNECTIONS_MAX = 1024;

interface Scene {
  readonly path: string;
  readonly uri: string;
  readonly server: NbdServer;
  readonly nbdExport: NbdExport;
  readonly taken: HandedConnection[];
}

/** A server with one export, "far", whose connections are handed over; it leaves no descriptor behind. */
async function serving(t: TestContext, disk: VirtualDisk = new MemoryDisk(bytes)): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), 'obd-hand-'));
  const before = (await readdir('/proc/self/fd')).length;
  const path = join(folder, 'nbd.sock');
  const server = await NbdServer.listen(path);
  const connections = new DiskConnections(disk, new ReplyBuffers(), () => {});
  const taken: HandedConnection[] = [];
  const nbdExport = server.addExport('far', {
    label: 'far',
    sizeBytes: disk.sizeBytes,
    flags: transmissionFlags(disk),
    serve: (connection) => {
      taken.push(connection);
      const { fd, rest, ended } = connection;
      connections.serve(fd, connection, rest).then(ended, ended);
    },
    end: () => connections.end(),
  });
  t.after(async () => {
    await server.close();
    await until(async () => (await readdir('/proc/self/fd')).length <= before);
    await rm(folder, { recursive: true });
  });
  return { path, uri: `nbd+unix:///far?socket=${path}`, server, nbdExport, taken };
}

/** A connection, and what it has brought. */
class Client {
  readonly socket: Socket;
  #brought: Buffer = Buffer.alloc(0);

  constructor(path: string) {
    this.socket = connect(path);
    this.socket.on('error', () => {});
    this.socket.on('data', (piece: Buffer) => {
      this.#brought = Buffer.concat([this.#brought, piece]);
    });
  }

  /** Connects a client and finishes its handshake. */
  static async entered(path: string): Promise<Client> {
    const client = new Client(path);
    client.send(CLIENT_FLAGS, option(7, infoData('far')));
    await client.take(GREETING_BYTES + GO_REPLY_BYTES);
    return client;
  }

  send(...pieces: Buffer[]): void {
    this.socket.write(Buffer.concat(pieces));
  }

  /** The next `length` bytes. */
  async take(length: number): Promise<Buffer> {
    await until(() => this.#brought.length >= length);
    const taken = this.#brought.subarray(0, length);
    this.#brought = this.#brought.subarray(length);
    return taken;
  }

  async assertAnswers(offset: number, length: number): Promise<void> {
    const reply = await this.take(16 + length);
    assert.ok(reply.subarray(16).equals(bytes.subarray(offset, offset + length)), `at ${offset}`);
  }
}

function read(cookie: number, offset: number, length: number): Buffer {
  return request({ command: 0, cookie, offset, length });
}

test('requests that a client sends with its GO arrive with the connection', async (t) => {
  const { path, taken } = await serving(t);
  const client = new Client(path);
  const reads = Array.from({ length: 40 }, (_, i) => read(i, i * 4096, 4096));
  // The cut is in the middle of a request.
  const cut = reads[20]!.subarray(0, 11);
  client.send(CLIENT_FLAGS, option(7, infoData('far')), ...reads.slice(0, 20), cut);
  await client.take(GREETING_BYTES + GO_REPLY_BYTES);
  for (let i = 0; i < 20; i++) await client.assertAnswers(i * 4096, 4096);
  assert.ok(taken[0]!.rest.length >= 11);
  client.send(reads[20]!.subarray(11), ...reads.slice(21));
  for (let i = 20; i < 40; i++) await client.assertAnswers(i * 4096, 4096);
  client.socket.destroy();
});

test('a client that has not read its answers yet is handed over when it has', async (t) => {
  const { path, taken } = await serving(t);
  const client = new Client(path);
  client.socket.pause();
  // Answered with 500 KiB, which is more than a socket takes.
  const lists = Array.from({ length: LISTS }, () => option(3));
  client.send(CLIENT_FLAGS, ...lists, option(7, infoData('far')), read(1, 0, 4096));
  await sleep(100);
  client.send(read(2, 8192, 4096));
  await sleep(50);
  assert.equal(taken.length, 0);
  client.socket.resume();
  const listed = 20 + 4 + 'far'.length + 20;
  await client.take(GREETING_BYTES + LISTS * listed + GO_REPLY_BYTES);
  await client.assertAnswers(0, 4096);
  await client.assertAnswers(8192, 4096);
  assert.equal(taken.length, 1);
  client.socket.destroy();
});

test('nbdinfo, nbdcopy and fio over several connections at once read the disk', async (t) => {
  const { uri, taken } = await serving(t);
  const info = await runClient(t, 'nbdinfo', ['--size', uri]);
  if (info === undefined) return;
  assert.equal(Number(info), bytes.length);
  const folder = await mkdtemp(join(tmpdir(), 'obd-hand-out-'));
  t.after(() => rm(folder, { recursive: true }));
  const copies = [0, 1].map((i) => join(folder, `copy${i}`));
  const job = ['--name=r', '--ioengine=nbd', `--uri=${uri}`, '--rw=randread', '--bsrange=512-128k'];
  const how = ['--size=8M', '--iodepth=16', '--numjobs=3', '--group_reporting', '--eta=never'];
  const [text] = await Promise.all([
    runClient(t, 'fio', [...job, ...how], folder),
    ...copies.map((copy) => runClient(t, 'nbdcopy', ['--connections=4', uri, copy])),
  ]);
  if (text !== undefined) assert.match(text, /err= 0/);
  for (const copy of copies) assert.ok((await readFile(copy)).equals(bytes));
  assert.ok(taken.length >= 9);
});

test('remove() disconnects the clients and waits for their reads', async (t) => {
  const disk = new WaitingDisk(bytes, 4096);
  const { path, nbdExport, server } = await serving(t, disk);
  const client = await Client.entered(path);
  client.send(read(1, 0, 512), read(2, 8192, 512));
  await client.assertAnswers(0, 512);
  await until(() => disk.loads > 0);
  let isRemoved = false;
  const removed = nbdExport.remove().then(() => {
    isRemoved = true;
  });
  await until(() => client.socket.destroyed);
  assert.equal(isRemoved, false);
  disk.arrive();
  await removed;
  await exportDisk(server, 'far', new MemoryDisk(bytes)).remove();
});

test('connections count until they have ended, on any thread', async (t) => {
  const { path, taken } = await serving(t);
  const clients: Client[] = [];
  // Not more at once than may wait to be accepted.
  while (clients.length < CONNECTIONS_MAX) {
    clients.push(...(await Promise.all(Array.from({ length: 256 }, () => Client.entered(path)))));
  }
  assert.equal(taken.length, CONNECTIONS_MAX);
  const refused = new Client(path);
  await until(() => refused.socket.destroyed);
  clients[0]!.socket.destroy();
  await until(async () => {
    const { socket } = new Client(path);
    const greeted = await Promise.race([
      once(socket, 'data').then(() => true),
      once(socket, 'close').then(() => false),
    ]);
    socket.destroy();
    return greeted;
  });
  for (const { socket } of clients) socket.destroy();
});

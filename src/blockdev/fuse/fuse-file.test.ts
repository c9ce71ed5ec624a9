/**
 * Goal: a device made by native/fuse-file has its reads answered by any right server, and with EIO when there is none for
 * too long; no behaviour or end of a server makes it hang or answer wrong bytes.
 * Method: real devices, read by child processes. Wrong servers are sockets that say a few chosen bytes.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { exportDisk } from '../../../test/support/exported-disk.js';
import { eventually, fuseFolder, fuseLeftovers } from '../../../test/support/fuse-folder.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import { ErrorCodes } from '../../errors.js';
import { NbdServer } from '../nbd/nbd-server.js';
import type { VirtualDisk } from '../virtual-disk.js';
import { makeFuseDevice } from './fuse-file.js';
import { FuseTransport } from './fuse-transport.js';

const run = promisify(execFile);
const skip = await new FuseTransport('/nowhere', '/nowhere').unavailableReason();
const SIZE_BYTES = 4 << 20;
const bytes = pagesOf(SIZE_BYTES);

class Scene {
  readonly #t: TestContext;
  readonly folder: string;
  readonly socketPath: string;
  readonly log: string;

  private constructor(t: TestContext, folder: string) {
    this.#t = t;
    this.folder = folder;
    this.socketPath = join(folder, 'nbd.sock');
    this.log = join(folder, 'device', 'log');
  }

  static async make(t: TestContext): Promise<Scene> {
    return new Scene(t, await fuseFolder(t));
  }

  async serve(disk: VirtualDisk = new MemoryDisk(bytes)): Promise<NbdServer> {
    const server = await NbdServer.listen(this.socketPath);
    this.#t.after(async () => {
      // The server closes only when no read waits.
      if (disk instanceof WaitingDisk) disk.fail();
      await server.close();
    });
    exportDisk(server, 'x', disk);
    return server;
  }

  /** A server that greets and treats its clients as it likes. */
  async serveWrongly(greet: (client: Socket) => void): Promise<{ close(): Promise<void> }> {
    const clients = new Set<Socket>();
    const server: Server = createServer((client) => {
      clients.add(client);
      client.on('error', () => {});
      greet(client);
    });
    await new Promise<void>((resolve) => server.listen(this.socketPath, resolve));
    const close = () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        for (const client of clients) client.destroy();
      });
    this.#t.after(close);
    return { close };
  }

  async makeDevice(absenceSeconds = 600): Promise<string> {
    const file = join(this.folder, 'device', 'disk');
    await mkdir(join(this.folder, 'device'), { recursive: true });
    const { socketPath, log } = this;
    const made = { socketPath, exportName: 'x', file, log, absenceSeconds };
    return (await makeFuseDevice(made)).path;
  }

  /** Resolves when the holder has logged it. */
  async logged(what: RegExp): Promise<void> {
    await eventually(String(what), async () => what.test(await readFile(this.log, 'utf8')));
  }
}

/** Reads a page of the device past the page cache. */
async function readPage(device: string, page: number): Promise<Buffer> {
  const what = [`if=${device}`, 'bs=4096', `skip=${page}`, 'count=1', 'iflag=direct'];
  const { stdout } = await run('dd', [...what, 'status=none'], { encoding: 'buffer' });
  return stdout;
}

function pageOf(page: number): Buffer {
  return bytes.subarray(page * 4096, (page + 1) * 4096);
}

/** The handshake of a server with an export of SIZE_BYTES, up to the transmission. */
function shakeHands(client: Socket, onRequest: (request: Buffer) => void): void {
  client.write(Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1'));
  client.once('data', () => {
    const replies = Buffer.alloc(20 + 12 + 20);
    for (const [at, type, length] of [
      [0, 3, 12],
      [32, 1, 0],
    ] as const) {
      replies.writeBigUInt64BE(0x3e889045565a9n, at);
      replies.writeUInt32BE(7, at + 8);
      replies.writeUInt32BE(type, at + 12);
      replies.writeUInt32BE(length, at + 16);
    }
    replies.writeBigUInt64BE(BigInt(SIZE_BYTES), 22);
    client.write(replies);
    client.on('data', onRequest);
  });
}

test('a read in flight is answered by the next server', { skip }, async (t) => {
  const scene = await Scene.make(t);
  const slow = new WaitingDisk(bytes, 1 << 20);
  const first = await scene.serve(slow);
  const device = await scene.makeDevice();
  const reads = Promise.all([300, 400, 500].map((page) => readPage(device, page)));
  await eventually('the reads are in flight', () => slow.loads === 3);
  const closed = first.close();
  await scene.logged(/it hung up; reads wait/);
  slow.fail();
  await closed;
  await scene.serve();
  assert.deepEqual(await reads, [300, 400, 500].map(pageOf));
});

test('reads get EIO when no server came within the limit, and bytes once there is one', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  const first = await scene.serve();
  const device = await scene.makeDevice(3);
  await first.close();
  const startedMs = performance.now();
  await assert.rejects(readPage(device, 1), /Input\/output error/);
  const waitedMs = performance.now() - startedMs;
  assert.ok(waitedMs > 2800 && waitedMs < 8000, `${waitedMs} ms`);
  await assert.rejects(readPage(device, 2), /Input\/output error/);
  assert.ok(performance.now() - startedMs - waitedMs < 2500, 'one that comes later does not wait');
  await scene.serve();
  await scene.logged(/The server is back/);
  assert.deepEqual(await readPage(device, 3), pageOf(3));
});

test('a server that leaves a read unanswered for too long is EIO, and hung up on', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  await scene.serve(new WaitingDisk(bytes, 1 << 20));
  const device = await scene.makeDevice(1);
  await assert.rejects(readPage(device, 300), /Input\/output error/);
  await scene.logged(/leaves reads unanswered; reads wait\n.*The server is back/);
  assert.deepEqual(await readPage(device, 3), pageOf(3));
});

test('an error of the server is EIO, and only for that read', { skip }, async (t) => {
  const scene = await Scene.make(t);
  const disk = new WaitingDisk(bytes, 1 << 20);
  disk.fail();
  await scene.serve(disk);
  const device = await scene.makeDevice();
  await assert.rejects(readPage(device, 300), /Input\/output error/);
  assert.deepEqual(await readPage(device, 3), pageOf(3));
});

for (const [what, reply] of [
  ['no reply', Buffer.alloc(64, 'x')],
  ['an answer to what was not asked', Buffer.from('67446698000000000000000000000050', 'hex')],
  ['half a reply, and the end', Buffer.from('6744', 'hex')],
] as const) {
  test(`a server that sends ${what} counts as absent`, { skip }, async (t) => {
    const scene = await Scene.make(t);
    const first = await scene.serve();
    const device = await scene.makeDevice(2);
    await first.close();
    const read = readPage(device, 7);
    const wrong = await scene.serveWrongly((client) => shakeHands(client, () => client.end(reply)));
    await scene.logged(/the server/);
    await sleep(300);
    await wrong.close();
    const right = await scene.serve();
    assert.deepEqual(await read, pageOf(7));
    await right.close();
    await scene.serveWrongly((client) => shakeHands(client, () => client.end(reply)));
    await assert.rejects(readPage(device, 8), /Input\/output error/);
  });
}

test('an export of another size is not the same, and reads wait for the right one', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  const first = await scene.serve();
  const device = await scene.makeDevice();
  await first.close();
  const read = readPage(device, 7);
  const other = await scene.serve(new MemoryDisk(pagesOf(SIZE_BYTES / 2)));
  await scene.logged(/it has 2097152 bytes now, not 4194304; reads wait/);
  await other.close();
  await scene.serve();
  assert.deepEqual(await read, pageOf(7));
});

test('concurrent reads of every length and alignment return the bytes of the disk', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  await scene.serve();
  const device = await scene.makeDevice();
  const file = join(scene.folder, 'source');
  await writeFile(file, bytes);
  const reads = [512, 4608, 65536, 1 << 20, 3 << 20, SIZE_BYTES].flatMap((length) =>
    ['', 'direct'].map(async (flag) => {
      const how = [`bs=${length}`, 'status=none', ...(flag === '' ? [] : [`iflag=${flag}`])];
      const options = { encoding: 'buffer', maxBuffer: 2 * SIZE_BYTES } as const;
      return (await run('dd', [`if=${device}`, ...how], options)).stdout.equals(bytes);
    }),
  );
  assert.ok((await Promise.all(reads)).every((equal) => equal));
});

test('a server that ends before the device has answered a read ends the attach', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  const disk = new WaitingDisk(bytes);
  const server = await scene.serve(disk);
  const made = scene.makeDevice();
  await eventually('the first read is in flight', () => disk.loads > 0);
  const refused = assert.rejects(made, { code: ErrorCodes.Io, message: /it hung up/ });
  const closed = server.close();
  await refused;
  disk.fail();
  await closed;
  assert.deepEqual(await fuseLeftovers(scene.folder), []);
});

test('attach fails if the server ends, or answers wrongly, before the device is made', {
  skip,
}, async (t) => {
  const scene = await Scene.make(t);
  const refused = (message: RegExp) =>
    assert.rejects(scene.makeDevice(), { code: ErrorCodes.Io, message });
  await refused(/Cannot connect to ".*nbd\.sock": No such file/);

  const strange = await scene.serveWrongly((client) =>
    client.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
  );
  await refused(/does not speak NBD's fixed newstyle handshake/);
  await strange.close();

  const fleeting = await scene.serveWrongly((client) => shakeHands(client, () => client.destroy()));
  await refused(/it hung up/);
  await fleeting.close();

  await (await scene.serve()).close();
  assert.deepEqual(await fuseLeftovers(scene.folder), []);
});

/**
 * Goal: the disk gets exactly what a client writes, trims, zeroes and flushes, in the order the protocol promises; a
 * request that is not allowed is refused with the protocol's reason and does no harm; a client cannot make the server
 * hold more than its limits.
 * Method: a disk in memory whose changes wait until the test lets them go; real clients (qemu-io, nbdcopy, fio) at a file.
 */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { exportDisk } from '../../../test/support/exported-disk.js';
import { FileDisk } from '../../../test/support/file-disk.js';
import { parseReplies, request } from '../../../test/support/nbd-bytes.js';
import { Connection } from '../../../test/support/nbd-connection.js';
import { runClient } from '../../../test/support/run-client.js';
import { MemoryDisk, pagesOf } from '../../../test/support/virtual-disks.js';
import { ErrorCodes, ObdError } from '../../errors.js';
import type { WritableDisk } from '../virtual-disk.js';
import { NbdServer } from './nbd-server.js';

const READ = 0;
const WRITE = 1;
const DISCONNECT = 2;
const FLUSH = 3;
const TRIM = 4;
const ZEROES = 6;
const FUA = 1;
const NO_HOLE = 2;

/** Says what it was asked, and does it when the test lets it. */
class SlowDisk extends MemoryDisk implements WritableDisk {
  readonly asked: string[] = [];
  failure: ObdError | undefined;
  #held: (() => void)[] | undefined;

  hold(): void {
    this.#held = [];
  }

  letGo(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const resolve of held) resolve();
  }

  async write(source: Uint8Array, offset: number): Promise<void> {
    await this.#ask(`write ${offset} ${source.length}`);
    this.bytes.set(source, offset);
  }

  async zero(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    await this.#ask(`zero ${offset} ${length} ${mayUnmap}`);
    this.bytes.fill(0, offset, offset + length);
  }

  async flush(): Promise<void> {
    await this.#ask('flush');
  }

  async #ask(what: string): Promise<void> {
    this.asked.push(what);
    if (this.#held !== undefined) {
      const held = this.#held;
      await new Promise<void>((resolve) => held.push(resolve));
    }
    if (this.failure !== undefined) throw this.failure;
  }
}

const answersOf = (connection: Connection, length = 0) =>
  parseReplies(connection.received, () => length).map(({ cookie, error }) => [cookie, error]);

test('a WRITE lands where it should, however its data are cut', async () => {
  const data = pagesOf(200_000);
  for (const step of [1000, 28, 65536, 300_000]) {
    const disk = new SlowDisk(Buffer.alloc(1 << 20));
    const connection = new Connection(disk);
    const all = Buffer.concat([
      request({ command: WRITE, cookie: 1, offset: 4097, data }),
      request({ command: WRITE, cookie: 2, offset: 512, data: Buffer.from('abc') }),
    ]);
    for (let at = 0; at < all.length; at += step) connection.send(all.subarray(at, at + step));
    await turn();
    assert.deepEqual(answersOf(connection), [
      [1, 0],
      [2, 0],
    ]);
    const expected = Buffer.alloc(1 << 20);
    data.copy(expected, 4097);
    expected.write('abc', 512);
    assert.ok(expected.equals(disk.bytes));
  }
});

test('a flush follows the answered writes, and a change with FUA causes a separate flush', async () => {
  const disk = new SlowDisk(Buffer.alloc(65536));
  const connection = new Connection(disk);
  const data = Buffer.alloc(512, 1);
  connection.send(request({ command: WRITE, cookie: 1, offset: 0, data }));
  await turn();
  connection.send(request({ command: FLUSH, cookie: 2 }));
  connection.send(request({ command: WRITE, cookie: 3, offset: 512, data, flags: FUA }));
  connection.send(request({ command: ZEROES, cookie: 4, offset: 0, length: 512, flags: NO_HOLE }));
  connection.send(request({ command: ZEROES, cookie: 5, offset: 0, length: 512, flags: FUA }));
  connection.send(request({ command: TRIM, cookie: 6, offset: 1024, length: 2048 }));
  await turn();
  assert.deepEqual(disk.asked.slice(0, 6), [
    'write 0 512',
    'flush',
    'write 512 512',
    'zero 0 512 false',
    'zero 0 512 true',
    'zero 1024 2048 true',
  ]);
  assert.deepEqual(disk.asked.slice(6), ['flush', 'flush']);
  assert.deepEqual(
    answersOf(connection).sort(),
    [1, 2, 3, 4, 5, 6].map((cookie) => [cookie, 0]),
  );
});

test('a change that waits holds up no read, and is answered when it is done', async () => {
  const disk = new SlowDisk(Buffer.alloc(65536));
  const connection = new Connection(disk);
  disk.hold();
  connection.send(request({ command: WRITE, cookie: 1, offset: 0, data: Buffer.alloc(512) }));
  connection.send(request({ command: FLUSH, cookie: 2 }));
  connection.send(request({ command: READ, cookie: 3, offset: 512, length: 16 }));
  await turn();
  const lengths = (cookie: number) => (cookie === 3 ? 16 : 0);
  const cookies = () => parseReplies(connection.received, lengths).map(({ cookie }) => cookie);
  assert.deepEqual(cookies(), [3]);
  disk.letGo();
  await turn();
  assert.deepEqual(cookies().sort(), [1, 2, 3]);
});

test('a change that is not possible is refused with its reason, and the next request is understood', async () => {
  const disk = new SlowDisk(Buffer.alloc(65536));
  const connection = new Connection(disk);
  const data = Buffer.alloc(1024, 7);
  connection.send(
    request({ command: WRITE, cookie: 1, offset: 65536 - 512, data }),
    request({ command: ZEROES, cookie: 2, offset: 65536, length: 512 }),
    request({ command: TRIM, cookie: 3, offset: 65536, length: 512 }),
    request({ command: WRITE, cookie: 4, offset: 0, length: 0 }),
    request({ command: TRIM, cookie: 5, offset: 0, length: 0 }),
    request({ command: WRITE, cookie: 6, offset: 2 ** 52, data }),
    request({ command: WRITE, cookie: 7, offset: 0, data }),
  );
  await turn();
  assert.deepEqual(answersOf(connection), [
    [1, 28],
    [2, 28],
    [3, 22],
    [4, 22],
    [5, 22],
    [6, 28],
    [7, 0],
  ]);
  assert.deepEqual(disk.asked, ['write 0 1024']);
});

test('a WRITE longer than any read may be is read past, and not held', async () => {
  const disk = new SlowDisk(Buffer.alloc(64 << 20));
  const connection = new Connection(disk);
  const length = (32 << 20) + 1;
  connection.send(request({ command: WRITE, cookie: 1, offset: 0, length }));
  const piece = Buffer.alloc(1 << 20);
  for (let i = 0; i < 32; i++) connection.send(piece);
  connection.send(Buffer.alloc(1), request({ command: FLUSH, cookie: 2 }));
  await turn();
  assert.deepEqual(answersOf(connection), [
    [1, 22],
    [2, 0],
  ]);
  assert.deepEqual(disk.asked, ['flush']);
});

test('a failed change is answered with its reason, and reported', async () => {
  const disk = new SlowDisk(Buffer.alloc(65536));
  const connection = new Connection(disk);
  const data = Buffer.alloc(512);
  disk.failure = new ObdError(ErrorCodes.NoSpace, 'Cannot write: the disk is full');
  connection.send(request({ command: WRITE, cookie: 1, offset: 512, data }));
  await turn();
  disk.failure = new ObdError(ErrorCodes.Io, 'Cannot write: EIO');
  connection.send(request({ command: FLUSH, cookie: 2 }));
  await turn();
  assert.deepEqual(answersOf(connection), [
    [1, 28],
    [2, 5],
  ]);
  assert.deepEqual(connection.failures, [512, 0]);
});

test('a client has only so many bytes of writes waiting, and the others when those are done', async () => {
  const disk = new SlowDisk(Buffer.alloc(1 << 20));
  const connection = new Connection(disk);
  disk.hold();
  const data = Buffer.alloc(1 << 20);
  for (let i = 0; i < 40; i++) connection.send(request({ command: WRITE, cookie: i, data }));
  await turn();
  assert.equal(disk.asked.length, 4);
  disk.letGo();
  while (connection.received.length < 40 * 16) await turn();
  assert.equal(disk.asked.length, 40);
});

test('DISC answers the writes before it, and end() waits for them', async () => {
  const disk = new SlowDisk(Buffer.alloc(65536));
  const connection = new Connection(disk);
  disk.hold();
  connection.send(request({ command: WRITE, cookie: 1, offset: 0, data: Buffer.alloc(512, 9) }));
  connection.send(request({ command: DISCONNECT, cookie: 0 }));
  await turn();
  assert.equal(connection.stream.writableEnded, false);
  disk.letGo();
  await turn();
  assert.deepEqual(answersOf(connection), [[1, 0]]);
  assert.equal(connection.stream.writableEnded, true);
  await connection.transmission.end();
});

/** A file of `bytes` as the export "disk", and a client at it; skips where there is no such program. */
async function served(t: TestContext, bytes: Uint8Array) {
  const folder = await mkdtemp(join(tmpdir(), 'obd-nbd-write-'));
  const file = join(folder, 'file');
  await writeFile(file, bytes);
  const disk = new FileDisk(file);
  const server = await NbdServer.listen(join(folder, 'sock'));
  t.after(async () => {
    await server.close();
    disk.close();
    await rm(folder, { recursive: true });
  });
  exportDisk(server, 'disk', disk);
  const uri = `nbd+unix:///disk?socket=${join(folder, 'sock')}`;
  const client = (program: string, ...args: string[]) => runClient(t, program, args, folder);
  return { folder, file, disk, uri, client };
}

test('nbdinfo sees a disk that can be written as one', async (t) => {
  const { uri, client } = await served(t, Buffer.alloc(1 << 20));
  const text = await client('nbdinfo', '--json', uri);
  if (text === undefined) return;
  const [info] = JSON.parse(text).exports;
  assert.deepEqual(
    [info.is_read_only, info.can_flush, info.can_fua, info.can_trim, info.can_zero],
    [false, true, true, true, true],
  );
  assert.equal(info.can_multi_conn, true);
});

test('nbdcopy copies a disk to a disk over several connections', async (t) => {
  const bytes = pagesOf((5 << 20) + 512);
  bytes.fill(0, 1 << 20, 2 << 20);
  const { folder, file, disk, uri, client } = await served(t, Buffer.alloc(bytes.length, 1));
  await writeFile(join(folder, 'source'), bytes);
  if ((await client('nbdcopy', '--flush', join(folder, 'source'), uri)) === undefined) return;
  assert.ok((await readFile(file)).equals(bytes));
  assert.ok(disk.counts.flushes > 0);
});

test('qemu-io writes, with FUA too, zeroes, discards and flushes', async (t) => {
  const { file, disk, uri, client } = await served(t, Buffer.alloc(4 << 20, 0xff));
  const commands = [
    ['write -P 0x11 0 64k', 'write -f -P 0x22 64k 3M', 'write -z 128k 64k', 'write -z -u 256k 64k'],
    ['discard 512k 64k', 'flush', 'read -P 0x11 0 64k', 'read -P 0 128k 64k', 'read -P 0x22 1M 1M'],
  ].flat();
  const args = commands.flatMap((command) => ['-c', command]);
  if ((await client('qemu-io', '-f', 'raw', ...args, uri)) === undefined) return;
  const expected = Buffer.alloc(4 << 20, 0xff);
  expected.fill(0x11, 0, 65536);
  expected.fill(0x22, 65536, 65536 + (3 << 20));
  for (const from of [131072, 262144, 524288]) expected.fill(0, from, from + 65536);
  assert.ok((await readFile(file)).equals(expected));
  assert.ok(disk.counts.zeroes >= 3 && disk.counts.flushes >= 1);
});

test('fio finds every block that it wrote', async (t) => {
  const { uri, client } = await served(t, Buffer.alloc(8 << 20));
  const job = [
    '--name=v',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bsrange=512-128k',
  ];
  const how = ['--size=8M', '--iodepth=16', '--verify=crc32c', '--verify_fatal=1', '--fsync=32'];
  const text = await client('fio', ...job, ...how);
  if (text !== undefined) assert.match(text, /err= 0/);
});

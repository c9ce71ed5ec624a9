/**
 * Goal: every request is answered byte for byte as the protocol document says, reads that wait hold up no
 * others, a client cannot make the server hold more than its limits, and how the bytes are cut changes nothing.
 * Method: a stream whose other end the test holds, so that it can cut what arrives and refuse what is sent.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { parseReplies, request } from '../../../test/support/nbd-bytes.js';
import { Connection } from '../../../test/support/nbd-connection.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';

const READ = 0;
const WRITE = 1;
const DISCONNECT = 2;
const FLUSH = 3;
const BLOCK_STATUS = 7;
const bytes = pagesOf(1 << 20);
bytes.fill(0, 65536, 131072);

/** The immediate answers to one arrival of bytes. */
async function answers(
  requests: Buffer,
  options: { structured?: boolean; allocation?: boolean } = {},
): Promise<string> {
  const connection = new Connection(new MemoryDisk(bytes), options);
  connection.send(requests);
  await turn();
  return connection.received.toString('hex');
}

const hex = (text: string): string => text.replaceAll(' ', '');

test('a READ is a header and the data, aligned or not', async () => {
  const read = request({ command: READ, cookie: 0x0102030405, offset: 8191, length: 3 });
  const data = bytes.subarray(8191, 8194).toString('hex');
  assert.equal(await answers(read), hex('67446698 00000000 0000000102030405') + data);
  assert.equal(
    await answers(read, { structured: true }),
    hex('668e33ef 0001 0001 0000000102030405 0000000b 0000000000001fff') + data,
  );
});

test('a request that a read-only disk does not grant is refused with its reason', async () => {
  const simple = (error: number) => hex(`67446698 ${String(error).padStart(8, '0')} `);
  const refused = async (error: string, ...requests: Parameters<typeof request>) => {
    const cookie = '0000000000000007';
    assert.equal(await answers(request(...requests)), hex(`67446698 ${error} ${cookie}`));
    assert.equal(
      await answers(request(...requests), { structured: true }),
      hex(`668e33ef 0001 8001 ${cookie} 00000006 ${error} 0000`),
    );
  };
  const cookie = 7;
  await refused('00000001', { command: WRITE, cookie, offset: 0, data: Buffer.alloc(100) });
  await refused('00000001', { command: WRITE, cookie, length: 0 });
  await refused('00000001', { command: 4, cookie, offset: 0, length: 512 });
  await refused('00000001', { command: 6, cookie, offset: 0, length: 512 });
  await refused('00000016', { command: READ, cookie, offset: bytes.length - 1, length: 2 });
  await refused('00000016', { command: READ, cookie, offset: 2 ** 52, length: 1 });
  await refused('00000016', { command: READ, cookie, offset: 0, length: 0 });
  await refused('00000016', { command: READ, cookie, offset: 0, length: 2 ** 25 + 1 });
  await refused('00000016', { command: BLOCK_STATUS, cookie, offset: 0, length: 512 });
  await refused('00000016', { command: 99, cookie });
  assert.equal(await answers(request({ command: FLUSH, cookie })), `${simple(0)}0000000000000007`);
});

test('BLOCK_STATUS tells data from holes, and one extent if one is asked for', async () => {
  const options = { structured: true, allocation: true };
  const status = { command: BLOCK_STATUS, cookie: 1, offset: 61440, length: 262144 };
  assert.equal(
    await answers(request(status), options),
    hex(`668e33ef 0001 0005 0000000000000001 0000001c 00000001
      00001000 00000000 00010000 00000003 0002f000 00000000`).replaceAll('\n', ''),
  );
  assert.equal(
    await answers(request({ ...status, flags: 8 }), options),
    hex('668e33ef 0001 0005 0000000000000001 0000000c 00000001 00001000 00000000'),
  );
});

test('all that arrives at once is answered in one write', async () => {
  const connection = new Connection(new MemoryDisk(bytes));
  const reads = Array.from({ length: 32 }, (_, i) =>
    request({ command: READ, cookie: i, offset: i * 4096, length: 4096 }),
  );
  connection.send(Buffer.concat(reads));
  await turn();
  assert.equal(connection.writes, 1);
  assert.equal(connection.received.length, 32 * (16 + 4096));
});

test('a READ longer than the reply buffers is answered too', async () => {
  const large = pagesOf(4 << 20);
  for (const structured of [false, true]) {
    const connection = new Connection(new MemoryDisk(large), { structured });
    connection.send(request({ command: READ, cookie: 1, offset: 512, length: 3 << 20 }));
    await turn();
    const [reply] = parseReplies(connection.received, () => 3 << 20);
    assert.ok(reply?.data.equals(large.subarray(512, 512 + (3 << 20))));
  }
});

test('a client that takes nothing holds few buffers, however little it asks for', async () => {
  const disk = new MemoryDisk(bytes);
  const connection = new Connection(disk);
  connection.holdReplies();
  for (let i = 0; i < 100; i++) {
    connection.send(request({ command: READ, cookie: 16, offset: 0, length: 16 }));
    await turn();
  }
  assert.ok(disk.readBytes <= 5 * 16, `${disk.readBytes} bytes were read`);
  connection.takeReplies();
  while (connection.received.length < 100 * 32) await turn();
});

test('a read that waits holds up no others', async () => {
  const disk = new WaitingDisk(bytes, 65536);
  const connection = new Connection(disk);
  const lengths = (cookie: number) => cookie;
  connection.send(
    request({ command: READ, cookie: 600, offset: 65536 * 3, length: 600 }),
    request({ command: READ, cookie: 100, offset: 0, length: 100 }),
  );
  await turn();
  assert.deepEqual(
    parseReplies(connection.received, lengths).map(({ cookie }) => cookie),
    [100],
  );
  disk.arrive();
  await turn();
  const replies = parseReplies(connection.received, lengths);
  assert.deepEqual(
    replies.map(({ cookie, error }) => [cookie, error]),
    [
      [100, 0],
      [600, 0],
    ],
  );
  assert.ok(replies[1]?.data.equals(bytes.subarray(65536 * 3, 65536 * 3 + 600)));
});

test('a read that fails is answered with EIO and reported once', async () => {
  const disk = new WaitingDisk(bytes, 65536);
  const connection = new Connection(disk, { structured: true });
  connection.send(request({ command: READ, cookie: 1, offset: 131072, length: 512 }));
  await turn();
  disk.fail();
  await turn();
  connection.send(request({ command: READ, cookie: 2, offset: 0, length: 512 }));
  await turn();
  assert.deepEqual(
    parseReplies(connection.received, () => 0).map(({ cookie, error }) => [cookie, error]),
    [
      [1, 5],
      [2, 0],
    ],
  );
  assert.deepEqual(connection.failures, [131072]);
});

test('after DISC the loads in flight are answered, later requests are not, and the connection ends', async () => {
  const disk = new WaitingDisk(bytes);
  const connection = new Connection(disk);
  connection.send(
    request({ command: READ, cookie: 512, offset: 0, length: 512 }),
    request({ command: DISCONNECT, cookie: 0 }),
    request({ command: READ, cookie: 1, offset: 0, length: 1 }),
  );
  await turn();
  assert.equal(connection.stream.writableEnded, false);
  disk.arrive();
  await turn();
  assert.deepEqual(
    parseReplies(connection.received, (cookie) => cookie).map(({ cookie }) => cookie),
    [512],
  );
  assert.equal(connection.stream.writableEnded, true);
});

test('malformed bytes end the connection', async () => {
  const connection = new Connection(new MemoryDisk(bytes));
  connection.send(Buffer.alloc(28, 0xff));
  await turn();
  assert.equal(connection.stream.destroyed, true);
});

test('a client that does not take its replies is not read from until it does', async () => {
  const disk = new MemoryDisk(pagesOf(1 << 20));
  const connection = new Connection(disk);
  connection.holdReplies();
  const read = request({ command: READ, cookie: 1 << 18, offset: 0, length: 1 << 18 });
  for (let i = 0; i < 200; i++) connection.send(read);
  await turn();
  assert.ok(disk.readBytes <= 3 << 20, `${disk.readBytes} bytes were read`);
  connection.takeReplies();
  while (connection.received.length < 200 * ((1 << 18) + 16)) await turn();
  assert.equal(parseReplies(connection.received, (cookie) => cookie).length, 200);
});

test('a client has at most 128 reads loading, and the others when those are done', async () => {
  const disk = new WaitingDisk(bytes);
  const connection = new Connection(disk);
  connection.send(
    ...Array.from({ length: 300 }, () =>
      request({ command: READ, cookie: 16, offset: 0, length: 16 }),
    ),
  );
  await turn();
  assert.equal(disk.loads, 128);
  disk.arrive();
  await turn();
  await turn();
  assert.equal(parseReplies(connection.received, (cookie) => cookie).length, 300);
});

test('queued loads delay no local read', async () => {
  const large = pagesOf(16 << 20);
  const disk = new WaitingDisk(large, 65536);
  const connection = new Connection(disk);
  const length = 131072;
  const lengths = (cookie: number) => (cookie === 512 ? 512 : length);
  const missing = Array.from({ length: 100 }, (_, i) =>
    request({ command: READ, cookie: i, offset: (i + 1) * length, length }),
  );
  connection.send(...missing, request({ command: READ, cookie: 512, offset: 0, length: 512 }));
  await turn();
  assert.equal(disk.loads, 32);
  const [first, ...others] = parseReplies(connection.received, lengths);
  assert.deepEqual([first?.cookie, others.length], [512, 0]);
  disk.arrive();
  for (let i = 0; i < 10; i++) await turn();
  const replies = parseReplies(connection.received, lengths);
  assert.equal(replies.length, 101);
  for (const { cookie, data } of replies.slice(1)) {
    const at = (cookie + 1) * length;
    assert.ok(data.equals(large.subarray(at, at + length)), `read ${cookie}`);
  }
});

test('end() drops the reads that wait to be loaded', async () => {
  const disk = new WaitingDisk(bytes);
  const connection = new Connection(disk);
  const read = request({ command: READ, cookie: 16, offset: 0, length: 16 });
  connection.send(...Array.from({ length: 130 }, () => read));
  await turn();
  const end = connection.transmission.end();
  disk.arrive();
  await end;
  assert.equal(disk.loads, 128);
});

test('end() waits until nothing reads the disk any more', async () => {
  const disk = new WaitingDisk(bytes);
  const connection = new Connection(disk);
  connection.send(request({ command: READ, cookie: 1, offset: 0, length: 16 }));
  await turn();
  let ended = false;
  const end = Promise.all([connection.transmission.end(), connection.transmission.end()]);
  void end.then(() => {
    ended = true;
  });
  await turn();
  assert.equal(ended, false);
  disk.arrive();
  await end;
  assert.deepEqual([connection.received.length, connection.failures], [0, []]);
});

test('however the bytes are cut, the answers are the same', async () => {
  const some = fc.record({
    command: fc.constantFrom(READ, READ, READ, WRITE, FLUSH, 4, BLOCK_STATUS, 77),
    cookie: fc.nat(),
    offset: fc.nat(bytes.length),
    length: fc.nat(9000),
    flags: fc.constantFrom(0, 8),
  });
  const cuts = fc.array(fc.nat(2000), { maxLength: 10 });
  await fc.assert(
    fc.asyncProperty(fc.array(some, { maxLength: 8 }), cuts, fc.boolean(), async (list, at, s) => {
      const all = Buffer.concat(
        list.map((each) => {
          const data = each.command === WRITE ? { data: Buffer.alloc(each.length) } : {};
          return request({ ...each, ...data });
        }),
      );
      const options = { structured: s, allocation: s };
      const places = [0, ...at.filter((cut) => cut < all.length).sort((a, b) => a - b), all.length];
      const connection = new Connection(new MemoryDisk(bytes), options);
      connection.send(...places.slice(1).map((end, i) => all.subarray(places[i], end)));
      await turn();
      assert.equal(connection.received.toString('hex'), await answers(all, options));
    }),
    { numRuns: 200 },
  );
});

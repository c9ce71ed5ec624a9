/**
 * Goal: every command that Linux sends is answered as SCSI has it, in any order of answers and wherever its entry and its
 * data lie; an invalid command gets its sense; a malformed ring ends the serving.
 * Method: a kernel's side in memory, with a small ring, so that it wraps all the time.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as tick } from 'node:timers/promises';
import fc from 'fast-check';
import { type Answer, TcmuKernel } from '../../../test/support/tcmu-kernel.js';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../../test/support/virtual-disks.js';
import { ErrorCodes, hasCode, ObdError } from '../../errors.js';
import type { VirtualDisk, WritableDisk } from '../virtual-disk.js';
import { CommandRing } from './command-ring.js';
import { RingServer, TRANSFER_BYTES_MAX } from './ring-server.js';
import { Senses } from './scsi-sense.js';

const SERIAL = '0123456789abcdef0123456789abcdef';
const BLOCKS = 2048;
const GOOD = { status: 0, sense: 0 };

class WritableMemory extends MemoryDisk implements WritableDisk {
  flushes = 0;
  failure: ObdError | undefined;

  async write(source: Uint8Array, offset: number): Promise<void> {
    await tick();
    if (this.failure !== undefined) throw this.failure;
    this.bytes.set(source, offset);
  }

  async zero(offset: number, length: number): Promise<void> {
    await tick();
    this.bytes.fill(0, offset, offset + length);
  }

  async flush(): Promise<void> {
    this.flushes++;
  }
}

interface Scene {
  readonly kernel: TcmuKernel;
  readonly server: RingServer;
  readonly failures: { error: unknown; offset: number; length: number }[];
  /** One command, and its answer. */
  ask(cdb: readonly number[], data?: Buffer | number): Promise<Answer>;
}

function serve(disk: VirtualDisk, kernel = new TcmuKernel(4096, 8 << 20, 700)): Scene {
  const failures: Scene['failures'] = [];
  const shared = Buffer.alloc(TRANSFER_BYTES_MAX);
  const server = new RingServer(kernel, disk, SERIAL, shared, (error, offset, length) =>
    failures.push({ error, offset, length }),
  );
  const ask = async (cdb: readonly number[], data: Buffer | number = 0) => {
    const answer = kernel.queue(cdb, data);
    assert.ok(answer !== undefined, 'the ring is full');
    server.wake();
    return await answer;
  };
  return { kernel, server, failures, ask };
}

function outcome({ status, sense }: Answer): { status: number; sense: number } {
  return { status, sense };
}

function failing(sense: number): { status: number; sense: number } {
  return { status: 2, sense };
}

const be16 = (value: number) => [(value >> 8) & 0xff, value & 0xff];
const be32 = (value: number) => [...be16(value >>> 16), ...be16(value & 0xffff)];
const read10 = (first: number, count: number) => [0x28, 0, ...be32(first), 0, ...be16(count), 0];
const write10 = (first: number, count: number, flags = 0) => [
  0x2a,
  flags,
  ...be32(first),
  0,
  ...be16(count),
  0,
];

test('all forms of READ read, and the answer of many is one kick', async () => {
  const disk = new MemoryDisk(pagesOf(BLOCKS * 512));
  const { kernel, server, ask } = serve(disk);
  const expected = Buffer.from(disk.bytes.subarray(5 * 512, 8 * 512));
  for (const cdb of [
    [0x08, 0, 0, 5, 3, 0],
    read10(5, 3),
    [0xa8, 0, ...be32(5), ...be32(3), 0, 0],
    [0x88, 0, ...be32(0), ...be32(5), ...be32(3), 0, 0],
  ]) {
    const { data, ...rest } = await ask(cdb, 3 * 512);
    assert.deepEqual(rest, GOOD);
    assert.deepEqual(data, expected);
  }
  // None is 256, of the shortest; of the others it is none.
  assert.deepEqual((await ask([0x08, 0, 0, 0, 0, 0], 131072)).data.subarray(131000).length, 72);
  assert.deepEqual(outcome(await ask(read10(5, 0))), GOOD);
  const kicks = kernel.kicks;
  const answers = [kernel.queue(read10(0, 1), 512), kernel.queue(read10(1, 1), 512)];
  server.wake();
  assert.deepEqual((await answers[1]!).data, Buffer.from(disk.bytes.subarray(512, 1024)));
  assert.equal(kernel.kicks, kicks + 1);
});

test('a read outside the disk, too long, or with too little room fails, and nothing else', async () => {
  const { ask, failures } = serve(new MemoryDisk(pagesOf(BLOCKS * 512)));
  assert.deepEqual(outcome(await ask(read10(BLOCKS - 1, 1), 512)), GOOD);
  assert.deepEqual(outcome(await ask(read10(BLOCKS, 1), 512)), failing(Senses.OutOfRange));
  assert.deepEqual(outcome(await ask(read10(BLOCKS - 1, 2), 1024)), failing(Senses.OutOfRange));
  const far = [0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...be32(1), 0, 0];
  assert.deepEqual(outcome(await ask(far, 512)), failing(Senses.OutOfRange));
  const long = [0x88, 0, ...be32(0), ...be32(0), ...be32(1 << 20), 0, 0];
  assert.deepEqual(outcome(await ask(long, 512)), failing(Senses.InvalidField));
  assert.deepEqual(outcome(await ask(read10(0, 2), 512)), failing(Senses.InvalidField));
  assert.deepEqual(failures, []);
});

test('a read that is not local delays no other command, and a failed read is reported once', async () => {
  const disk = new WaitingDisk(pagesOf(BLOCKS * 512), 4096);
  const { kernel, server, ask, failures } = serve(disk);
  const slow = kernel.queue(read10(100, 2), 1024)!;
  assert.deepEqual((await ask(read10(0, 1), 512)).data, Buffer.from(disk.bytes.subarray(0, 512)));
  assert.equal(kernel.unanswered, 1);
  const stopped = server.stop();
  disk.arrive();
  assert.deepEqual((await slow).data, Buffer.from(disk.bytes.subarray(51200, 52224)));
  await stopped;

  const dead = new WaitingDisk(pagesOf(BLOCKS * 512), 4096);
  const other = serve(dead);
  dead.fail();
  const answer = await other.ask(read10(100, 2), 1024);
  assert.deepEqual(outcome(answer), failing(Senses.ReadFailed));
  assert.deepEqual(
    other.failures.map(({ offset, length }) => ({ offset, length })),
    [{ offset: 51200, length: 1024 }],
  );
  assert.equal(failures.length, 0);
});

test('each command gets its own data, in any order of commands and answers', async () => {
  const bytes = pagesOf(BLOCKS * 512);
  const commands = fc.array(
    fc.record({
      first: fc.nat(BLOCKS - 40),
      count: fc.integer({ min: 1, max: 40 }),
      slow: fc.boolean(),
      other: fc.constantFrom(0, 0, 0, 2, 3),
    }),
    { minLength: 1, maxLength: 60 },
  );
  await fc.assert(
    fc.asyncProperty(commands, fc.integer({ min: 400, max: 5000 }), async (list, piece) => {
      const waiting: (() => void)[] = [];
      const arrived = new Set<number>();
      const slow = new Set(list.filter((each) => each.slow).map((each) => each.first));
      const disk = new (class extends MemoryDisk {
        override tryRead(target: Uint8Array, offset: number): boolean {
          if (slow.has(offset / 512) && !arrived.has(offset)) return false;
          return super.tryRead(target, offset);
        }
        override async load(offset: number): Promise<void> {
          await new Promise<void>((resolve) => waiting.push(resolve));
          arrived.add(offset);
        }
      })(bytes, 'slow');
      const { kernel, server, failures } = serve(disk, new TcmuKernel(4096, 4 << 20, piece));
      const checks: Promise<void>[] = [];
      for (const { first, count, other } of list) {
        let answer: Promise<Answer> | undefined;
        if (other !== 0) kernel.queueOther(other, 16);
        for (let tries = 0; answer === undefined; tries++) {
          assert.ok(tries < 1000, 'the ring stays full');
          answer = kernel.queue(read10(first, count), count * 512);
          server.wake();
          if (answer === undefined) waiting.pop()?.();
          await tick();
        }
        checks.push(
          answer.then(({ data, ...rest }) => {
            assert.deepEqual(rest, GOOD);
            const expected = bytes.subarray(first * 512, (first + count) * 512);
            assert.ok(data.equals(expected), `${count} blocks from ${first}`);
          }),
        );
      }
      while (kernel.unanswered > 0) {
        waiting.pop()?.();
        await tick();
      }
      await Promise.all(checks);
      await server.stop();
      assert.deepEqual(failures, []);
    }),
    { numRuns: 60 },
  );
});

test('writes are written, and flushed where the command says so', async () => {
  const disk = new WritableMemory(pagesOf(BLOCKS * 512));
  const { ask, failures } = serve(disk);
  const data = pagesOf(2048).fill(7, 100, 200);
  assert.deepEqual(outcome(await ask(write10(9, 4), data)), GOOD);
  assert.deepEqual(Buffer.from(disk.bytes.subarray(9 * 512, 13 * 512)), data);
  assert.equal(disk.flushes, 0);
  assert.deepEqual(outcome(await ask(write10(9, 4, 0x08), data)), GOOD);
  assert.equal(disk.flushes, 1);
  assert.deepEqual(outcome(await ask([0x35, 0, ...be32(0), 0, 0, 0, 0])), GOOD);
  assert.equal(disk.flushes, 2);
  assert.deepEqual(outcome(await ask(write10(9, 4), data.subarray(512))), failing(0x052400));
  assert.deepEqual(outcome(await ask(write10(BLOCKS, 1), data)), failing(Senses.OutOfRange));
  assert.deepEqual(failures, []);
  disk.failure = new ObdError(ErrorCodes.NoSpace, 'Cannot write: full');
  assert.deepEqual(outcome(await ask(write10(0, 4), data)), failing(Senses.NoSpace));
  disk.failure = new ObdError(ErrorCodes.Io, 'Cannot write');
  assert.deepEqual(outcome(await ask(write10(0, 4), data)), failing(Senses.WriteFailed));
  assert.deepEqual(
    failures.map(({ offset }) => offset),
    [0, 0],
  );
});

test('UNMAP and WRITE SAME zero their ranges, or write a pattern', async () => {
  const disk = new WritableMemory(pagesOf(BLOCKS * 512));
  const { ask } = serve(disk);
  const isZero = (first: number, count: number) =>
    disk.bytes.subarray(first * 512, (first + count) * 512).every((byte) => byte === 0);
  const list = Buffer.alloc(8 + 32);
  list.writeUInt16BE(38, 0);
  list.writeUInt16BE(32, 2);
  list.writeUInt32BE(10, 12);
  list.writeUInt32BE(4, 16);
  list.writeUInt32BE(20, 28);
  list.writeUInt32BE(1, 32);
  const unmap = (bytes: Buffer) => ask([0x42, 0, 0, 0, 0, 0, 0, ...be16(bytes.length), 0], bytes);
  assert.deepEqual(outcome(await unmap(list)), GOOD);
  assert.ok(isZero(10, 4) && isZero(20, 1) && !isZero(14, 1));
  list.writeUInt32BE(BLOCKS, 28);
  assert.deepEqual(outcome(await unmap(list)), failing(Senses.OutOfRange));
  list.writeUInt16BE(48, 2);
  assert.deepEqual(outcome(await unmap(list)), failing(Senses.ListTooShort));
  assert.deepEqual(outcome(await unmap(Buffer.alloc(4))), failing(Senses.ListTooShort));
  assert.deepEqual(outcome(await unmap(Buffer.alloc(0))), GOOD);

  const same16 = (flags: number, first: number, count: number) => [
    ...[0x93, flags, ...be32(0), ...be32(first)],
    ...[...be32(count), 0, 0],
  ];
  const zeroes = Buffer.alloc(512);
  assert.deepEqual(outcome(await ask(same16(0x08, 30, 5), zeroes)), GOOD);
  assert.ok(isZero(30, 5) && !isZero(35, 1));
  assert.deepEqual(outcome(await ask(same16(0x01, 40, 2))), GOOD);
  assert.ok(isZero(40, 2));
  const pattern = Buffer.alloc(512, 'ab');
  assert.deepEqual(outcome(await ask(same16(0, 50, 3), pattern)), GOOD);
  assert.deepEqual(Buffer.from(disk.bytes.subarray(25600, 27136)), Buffer.alloc(1536, 'ab'));
  assert.deepEqual(outcome(await ask(same16(0, 50, 0), pattern)), failing(Senses.InvalidField));
  assert.deepEqual(outcome(await ask(same16(0, 0, 1 << 17), pattern)), failing(0x052400));
  const same10 = [0x41, 0, ...be32(60), 0, ...be16(1), 0];
  assert.deepEqual(outcome(await ask(same10, zeroes)), GOOD);
  assert.ok(isZero(60, 1));
});

test('a disk that is not writable is write protected, and needs no flush', async () => {
  const { ask } = serve(new MemoryDisk(pagesOf(BLOCKS * 512)));
  const block = Buffer.alloc(512);
  for (const cdb of [
    write10(0, 1),
    [0x0a, 0, 0, 0, 1, 0],
    [0x41, 0, ...be32(0), 0, ...be16(1), 0],
    [0x42, 0, 0, 0, 0, 0, 0, ...be16(512), 0],
  ]) {
    assert.deepEqual(outcome(await ask(cdb, block)), failing(Senses.WriteProtected));
  }
  assert.deepEqual(outcome(await ask([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])), GOOD);
});

test('an answer is cut to the length of the request, and zeroes fill a longer buffer', async () => {
  const { ask } = serve(new MemoryDisk(pagesOf(BLOCKS * 512)));
  const { data, ...rest } = await ask([0x12, 0, 0, 0, 255, 0], 96);
  assert.deepEqual(rest, GOOD);
  assert.equal(data.toString('latin1', 8, 36), 'OBD-TS  Virtual disk    0001');
  assert.deepEqual(data.subarray(36), Buffer.alloc(60));
  const cut = await ask([0x12, 0, 0, 0, 8, 0], 96);
  assert.deepEqual(cut.data.subarray(8), Buffer.alloc(88));
  assert.deepEqual((await ask([0x12, 0, 0, 0, 255, 0], 4)).data, data.subarray(0, 4));
  assert.deepEqual(outcome(await ask([0x12, 0, 0, 0, 0, 0])), GOOD);
});

test('a malformed command, or one that is not for disks, gets its sense', async () => {
  const { ask } = serve(new WritableMemory(pagesOf(BLOCKS * 512)));
  assert.deepEqual(outcome(await ask([0xff])), failing(Senses.UnknownCommand));
  assert.deepEqual(outcome(await ask([0x89])), failing(Senses.UnknownCommand));
  assert.deepEqual(outcome(await ask([0x12, 0, 0x80, 0, 96, 0], 96)), failing(0x052400));
  assert.deepEqual(outcome(await ask([0x12, 1, 0x99, 0, 96, 0], 96)), failing(0x052400));
  assert.deepEqual(outcome(await ask([0x9e, 0x11], 32)), failing(Senses.InvalidField));
  assert.deepEqual(outcome(await ask([0x2f, 2, ...be32(0), 0, 0, 1, 0])), failing(0x052400));
  assert.deepEqual(outcome(await ask([0x2f, 0, ...be32(0), 0, 0, 1, 0])), GOOD);
  assert.deepEqual(outcome(await ask([0x00])), GOOD);
  assert.deepEqual(outcome(await ask([0x1b, 0, 0, 0, 1, 0])), GOOD);
});

test('MODE SELECT accepts the pages of MODE SENSE alone', async () => {
  const { ask } = serve(new WritableMemory(pagesOf(BLOCKS * 512)));
  const { data } = await ask([0x1a, 0x08, 0x3f, 0, 255, 0], 64);
  const bytes = Buffer.from(data.subarray(0, data[0]! + 1));
  bytes[0] = 0;
  const select = (list: Buffer, flags = 0x10) =>
    ask([0x15, flags, 0, 0, list.length, 0], list).then(outcome);
  assert.deepEqual(await select(bytes), GOOD);
  assert.deepEqual(await select(bytes, 0), failing(Senses.InvalidField));
  assert.deepEqual(await select(bytes.subarray(0, 10)), failing(Senses.ListTooShort));
  bytes[bytes.indexOf(Buffer.from([0x08, 0x12])) + 2] = 0;
  assert.deepEqual(await select(bytes), failing(Senses.InvalidList));
});

test('any bytes for a command are answered', async () => {
  const { ask } = serve(new WritableMemory(pagesOf(BLOCKS * 512)));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(255), { minLength: 16, maxLength: 16 }),
      fc.oneof(fc.nat(5000), fc.uint8Array({ maxLength: 5000 }).map(Buffer.from)),
      async (cdb, data) => {
        const { status, sense } = await ask(cdb, data);
        assert.equal(status === 0, sense === 0);
      },
    ),
    { numRuns: 500 },
  );
});

test('a malformed ring stops the server, which reports it', async () => {
  for (const length of [0, 8192]) {
    const { kernel, server, failures } = serve(new MemoryDisk(pagesOf(BLOCKS * 512)));
    kernel.queueOther(1, 112);
    Buffer.from(kernel.ring).writeUInt32LE(length | 1, 128);
    server.wake();
    assert.ok(hasCode(failures[0]?.error, ErrorCodes.Io));
    await server.stop();
  }
});

test('CommandRing refuses a ring that takes answers in order only', () => {
  const kernel = new TcmuKernel(4096, 4096, 4096);
  Buffer.from(kernel.ring).writeUInt16LE(2, 2);
  assert.throws(() => new CommandRing(kernel.ring), { code: ErrorCodes.Unsupported });
});

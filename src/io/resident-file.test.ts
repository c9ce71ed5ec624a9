/**
 * Goal: a file is read without waiting for its disk, as the bytes it holds, however it has to be read.
 * Method: real files, dropped from the page cache with dd; on a file system that has no such notion, its own cases.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { NOT_IN_MEMORY, NOWAIT_UNSUPPORTED, readNow } from './libaio.js';
import { ResidentFile } from './resident-file.js';
import { ThreadProgram } from './start-thread.js';

const BYTES = (5 << 20) + 777;
const DROPS_MAX = 50;
const TRIES_MAX = 5;
const directory = mkdtempSync(join(tmpdir(), 'obd-resident-'));
after(() => rmSync(directory, { recursive: true }));

const bytes = Buffer.alloc(BYTES);
for (let i = 0; i + 4 <= BYTES; i += 4) bytes.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);

function fileOf(name: string, where = directory): string {
  const path = join(where, name);
  writeFileSync(path, bytes);
  return path;
}

/** Writes what is dirty, and asks the kernel to drop all of the file from the page cache. */
function drop(path: string): void {
  const args = [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'];
  execFileSync('dd', args, { stdio: 'ignore' });
}

/**
 * Drops the file until none of it is in the page cache: the kernel keeps pages that another processor holds. Checked
 * with mincore(2), because a read that does not wait begins readahead.
 */
function dropAll(path: string): void {
  for (let attempt = 0; attempt < DROPS_MAX; attempt++) {
    drop(path);
    const args = ['--bytes', '--noheadings', '--output', 'RES', path];
    if (execFileSync('fincore', args, { encoding: 'utf8' }).trim() === '0') return;
  }
}

function opened(path: string): { file: ResidentFile; fd: number; close: () => void } {
  const fd = openSync(path, 'r');
  const file = new ResidentFile(fd, path);
  const close = () => {
    file.close();
    closeSync(fd);
  };
  return { file, fd, close };
}

/** Whether this file system reports its page cache, and can drop pages from it. */
function droppable(): string | false {
  const path = fileOf('probe');
  drop(path);
  const fd = openSync(path, 'r');
  const got = readNow(fd, new Uint8Array(4096), 0, 4096, 1 << 20);
  closeSync(fd);
  return got === NOT_IN_MEMORY
    ? false
    : `the file system of ${directory} does not drop pages (${got})`;
}

const skip = droppable();

test('reads bytes in the page cache at once, at any offset', () => {
  const { file, close } = opened(fileOf('warm'));
  const target = Buffer.alloc(300_000);
  assert.equal(file.tryRead(target, 123_457), true);
  assert.deepEqual(target, bytes.subarray(123_457, 423_457));
  assert.equal(file.tryRead(target.subarray(0, 777), BYTES - 777), true);
  assert.deepEqual(target.subarray(0, 777), bytes.subarray(BYTES - 777));
  close();
});

test('tryRead() does not wait for other bytes, and reads them after load()', { skip }, async () => {
  const path = fileOf('cold');
  const { file, close } = opened(path);
  for (const [offset, length] of [
    [0, 4096],
    [1 << 20, 100],
    [(2 << 20) - 3, 70_000],
    [BYTES - 5000, 5000],
    [0, BYTES],
  ] as const) {
    const target = Buffer.alloc(length);
    // The read begins readahead, and a fast disk may have the bytes before the kernel looks again.
    let isRead = true;
    for (let attempt = 0; isRead && attempt < TRIES_MAX; attempt++) {
      dropAll(path);
      if (length > 100_000) file.invalidate(0, BYTES);
      isRead = file.tryRead(target, offset);
    }
    assert.equal(isRead, false, `${offset}`);
    await file.load(offset, length);
    assert.equal(file.tryRead(target, offset), true, `${offset}`);
    assert.deepEqual(target, bytes.subarray(offset, offset + length));
  }
  close();
});

test('a range in the page cache but for its middle is read right', { skip }, async () => {
  const path = fileOf('mixed');
  drop(path);
  const { file, fd, close } = opened(path);
  // Brings the ends into the page cache; pages that the kernel reads ahead do not matter.
  for (const at of [0, 1 << 20]) readNow(fd, new Uint8Array(1), 0, 1, at);
  await file.load(300_000, 4096);
  await file.load(0, 1 << 20);
  const target = Buffer.alloc(1 << 20);
  assert.equal(file.tryRead(target, 0), true);
  assert.deepEqual(target, bytes.subarray(0, 1 << 20));
  close();
});

test('concurrent loads are all answered, also more than there are slots for', {
  skip,
}, async () => {
  const paths = Array.from({ length: 4 }, (_, i) => fileOf(`many-${i}`));
  for (const path of paths) drop(path);
  const files = paths.map(opened);
  const reads = [];
  for (let at = 0; at + 8192 < BYTES; at += 65_536 - 512) {
    for (const { file } of files) {
      reads.push(
        (async () => {
          const target = Buffer.alloc(8192);
          let turns = 0;
          while (!file.tryRead(target, at)) {
            await file.load(at, target.length);
            assert.ok(++turns < 3, `${turns} turns at ${at}`);
          }
          assert.deepEqual(target, bytes.subarray(at, at + 8192));
        })(),
      );
    }
  }
  await Promise.all(reads);
  for (const { close } of files) close();
});

test('invalidated bytes are read again, also if their load was in flight', { skip }, async () => {
  const path = fileOf('forgotten');
  drop(path);
  const { file, close } = opened(path);
  const loading = file.load(0, 4096);
  file.invalidate(0, 4096);
  await loading;
  writeFileSync(path, Buffer.alloc(BYTES, 7), { flag: 'r+' });
  const target = Buffer.alloc(4096);
  assert.equal(file.tryRead(target, 0), true);
  assert.deepEqual(target, Buffer.alloc(4096, 7));
  close();
});

test('a file that was cut short is corrupt, and not zeroes', { skip }, async () => {
  const path = fileOf('short');
  const { file, close } = opened(path);
  truncateSync(path, 100_000);
  drop(path);
  await file.load(90_000, 20_000);
  assert.throws(() => file.tryRead(new Uint8Array(20_000), 90_000), {
    code: ErrorCodes.Corrupt,
    details: { path, offset: 100_000 },
  });
  close();
});

test('a load ends when its file is closed', { skip }, async () => {
  const path = fileOf('closed');
  drop(path);
  const { file, close } = opened(path);
  const loading = Promise.allSettled([file.load(0, 1 << 20), file.load(0, BYTES)]);
  close();
  await loading;
});

test('tryRead() always answers if its caller may wait', { skip }, () => {
  const path = fileOf('waiting');
  drop(path);
  const fd = openSync(path, 'r');
  const file = new ResidentFile(fd, path, true);
  const target = Buffer.alloc(100_000);
  assert.equal(file.tryRead(target, 1 << 20), true);
  assert.deepEqual(target, bytes.subarray(1 << 20, (1 << 20) + 100_000));
  file.close();
  closeSync(fd);
});

test('a file system that is memory is simply read', async () => {
  const where = mkdtempSync('/dev/shm/obd-resident-');
  try {
    const { file, fd, close } = opened(fileOf('memory', where));
    const got = readNow(fd, new Uint8Array(10), 0, 10, 0);
    assert.ok(got === NOWAIT_UNSUPPORTED || got === 10);
    const target = Buffer.alloc(100_000);
    await file.load(0, BYTES);
    assert.equal(file.tryRead(target, 3), true);
    assert.deepEqual(target, bytes.subarray(3, 100_003));
    close();
  } finally {
    rmSync(where, { recursive: true });
  }
});

test('a thread that ends while the disk is busy ends', { skip }, async () => {
  const path = fileOf('thread');
  for (const [end, expected] of [
    ['exit', 3],
    ['wait', 0],
    ['terminate', 1],
  ] as const) {
    drop(path);
    const worker = new ThreadProgram(import.meta.url, '../../test/support/loading-thread').start({
      workerData: { path, end },
    });
    const code = new Promise<number>((resolve, reject) => {
      worker.once('exit', resolve);
      worker.once('error', reject);
    });
    if (end === 'terminate') {
      await new Promise((resolve) => worker.once('message', resolve));
      await worker.terminate();
    }
    assert.equal(await code, expected);
  }
});

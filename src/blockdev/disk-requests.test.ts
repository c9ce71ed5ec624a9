/**
 * Goal: a server's requests are answered once, counted, and reported where they fail; an observer sees each; stop()
 * resolves when the disk is idle.
 * Method: disks in memory whose loads the test answers.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { MemoryDisk, pagesOf, WaitingDisk } from '../../test/support/virtual-disks.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { DiskRequests } from './disk-requests.js';
import type { RequestObserver } from './request-observer.js';
import type { WritableDisk } from './virtual-disk.js';

const EIO = 5;
const ENOSPC = 28;
const bytes = pagesOf(64 << 10);

class FullDisk extends MemoryDisk implements WritableDisk {
  readonly calls: string[] = [];
  failure: ObdError | undefined;

  async write(): Promise<void> {
    await this.#call('write');
  }

  async zero(): Promise<void> {
    await this.#call('zero');
  }

  async flush(): Promise<void> {
    await this.#call('flush');
  }

  async #call(what: string): Promise<void> {
    this.calls.push(what);
    await turn();
    if (this.failure !== undefined) throw this.failure;
  }
}

/** Requests of a disk, and the failures they report. */
function requestsOf(disk: MemoryDisk) {
  const failures: [offset: number, length: number][] = [];
  const requests = new DiskRequests(disk, (_, offset, length) => failures.push([offset, length]));
  return { requests, failures };
}

/** An observer's calls as text, without the durations, which are checked. */
class Notes implements RequestObserver {
  readonly lines: string[] = [];

  started(kind: string, offset: number, length: number): void {
    this.lines.push(`${kind} ${offset}+${length} started`);
  }

  ended(...[kind, offset, length, ms, from, error]: Parameters<RequestObserver['ended']>): void {
    assert.ok(ms >= 0 && ms < 10_000);
    const outcome = error instanceof ObdError ? ` ${error.code}` : '';
    this.lines.push(`${kind} ${offset}+${length} ${from}${outcome}`);
  }
}

test('tryRead() fills the target from local bytes only', () => {
  const disk = new WaitingDisk(bytes, 4096);
  const { requests } = requestsOf(disk);
  const target = Buffer.alloc(512);
  assert.equal(requests.tryRead(target, 1024), true);
  assert.ok(target.equals(bytes.subarray(1024, 1536)));
  assert.equal(requests.tryRead(target, 8192), false);
  assert.equal(requests.inFlight, 0);
});

test('tryRead() leaves an error to read(), which reports it once', async () => {
  const disk = new MemoryDisk(bytes);
  disk.tryRead = () => {
    throw new ObdError(ErrorCodes.Io, 'the disk is broken');
  };
  const { requests, failures } = requestsOf(disk);
  const target = Buffer.alloc(512);
  assert.equal(requests.tryRead(target, 512), false);
  assert.deepEqual(failures, []);
  const errno = await new Promise((resolve) => requests.read(target, 512, resolve));
  assert.equal(errno, EIO);
  assert.deepEqual(failures, [[512, 512]]);
});

test('reads in flight are counted until their callback, and stop() waits for them', async () => {
  const disk = new WaitingDisk(bytes);
  const { requests, failures } = requestsOf(disk);
  const answers: number[] = [];
  requests.read(Buffer.alloc(512), 0, (errno) => answers.push(errno));
  requests.read(Buffer.alloc(1024), 4096, (errno) => answers.push(errno));
  assert.deepEqual([requests.inFlight, requests.heldBytes], [2, 1536]);
  let isStopped = false;
  const stopped = Promise.all([requests.stop(), requests.stop()]).then(() => {
    isStopped = true;
  });
  await turn();
  assert.equal(isStopped, false);
  disk.arrive();
  await stopped;
  assert.deepEqual(answers, [0, 0]);
  assert.deepEqual([requests.inFlight, requests.heldBytes], [0, 0]);
  assert.deepEqual(failures, []);
});

test('a request that fails after stop() is not reported', async () => {
  const disk = new WaitingDisk(bytes);
  const { requests, failures } = requestsOf(disk);
  const answers: number[] = [];
  requests.read(Buffer.alloc(512), 0, (errno) => answers.push(errno));
  const stopped = requests.stop();
  disk.fail();
  await stopped;
  assert.deepEqual(answers, [EIO]);
  assert.deepEqual(failures, []);
});

test('a full disk is ENOSPC for changes, and EIO for reads', async () => {
  const disk = new FullDisk(bytes);
  const { requests, failures } = requestsOf(disk);
  disk.failure = new ObdError(ErrorCodes.NoSpace, 'the disk is full');
  const answers = [
    await new Promise((resolve) => requests.write(Buffer.alloc(512), 0, false, resolve)),
    await new Promise((resolve) => requests.zero(512, 1024, true, false, resolve)),
    await new Promise((resolve) => requests.flush(resolve)),
  ];
  assert.deepEqual(answers, [ENOSPC, ENOSPC, ENOSPC]);
  disk.tryRead = () => false;
  disk.load = () => Promise.reject(disk.failure);
  const read = await new Promise((resolve) => requests.read(Buffer.alloc(8), 0, resolve));
  assert.equal(read, EIO);
  assert.deepEqual(failures, [
    [0, 512],
    [512, 1024],
    [0, 0],
    [0, 8],
  ]);
});

test('a durable change is flushed before its callback', async () => {
  const disk = new FullDisk(bytes);
  const { requests } = requestsOf(disk);
  await new Promise((resolve) => requests.write(Buffer.alloc(512), 0, true, resolve));
  await new Promise((resolve) => requests.zero(0, 512, true, true, resolve));
  await new Promise((resolve) => requests.zero(0, 512, true, false, resolve));
  assert.deepEqual(disk.calls, ['write', 'flush', 'zero', 'flush', 'zero']);
});

test('an observer sees each request once, and can be set and unset at any time', async () => {
  const disk: WaitingDisk & { observer?: RequestObserver | undefined } = new WaitingDisk(
    bytes,
    4096,
  );
  const { requests } = requestsOf(disk);
  const notes = new Notes();
  const target = Buffer.alloc(512);
  requests.tryRead(target, 0);
  disk.observer = notes;
  requests.tryRead(target, 0);
  requests.tryRead(target, 8192);
  const answered = new Promise((resolve) => requests.read(target, 8192, resolve));
  disk.fail();
  await answered;
  disk.observer = undefined;
  requests.tryRead(target, 0);
  assert.deepEqual(notes.lines, [
    'read 0+512 local',
    'read 8192+512 started',
    'read 8192+512 loaded ERR_UNAVAILABLE',
  ]);
});

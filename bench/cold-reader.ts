/**
 * A thread that reads a file in one of three ways, for bench/cold-reads.ts:
 *
 *   direct    ResidentFile as the daemon has it: the page cache, else the kernel's aio past it into 64 KiB blocks
 *   no aio    the same class where the kernel has no room for a queue: 64 KiB blocks through libuv's pool
 *   plain     preadv2(RWF_NOWAIT), else one pread of the range on libuv's pool
 */
import assert from 'node:assert/strict';
import { openSync, read } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { AioQueue, alignedBytes, readNow } from '../src/io/libaio.js';
import { ResidentFile } from '../src/io/resident-file.js';

/** Then other work of the thread has its turn. */
const HITS_IN_A_ROW = 64;

export type ReaderName = 'direct' | 'no aio' | 'plain';

export interface ReaderData {
  readonly reader: ReaderName;
  readonly path: string;
}

export interface ReadJob {
  /** Where the reads begin. They stop at the end of these, or after `seconds`. */
  readonly offsets: Float64Array;
  readonly bytes: number;
  readonly depth: number;
  readonly seconds: number;
  /** Blocks of earlier jobs are dropped before this one. */
  readonly fresh: boolean;
}

export interface JobResult {
  readonly reads: number;
  readonly seconds: number;
  /** The longest time for which the thread did nothing else. */
  readonly blockedMs: number;
}

interface Reader {
  read(target: Uint8Array, offset: number): boolean | Promise<void>;
  reset(): void;
}

class Blocks implements Reader {
  readonly #file: ResidentFile;

  constructor(fd: number, path: string) {
    this.#file = new ResidentFile(fd, path);
  }

  read(target: Uint8Array, offset: number): boolean | Promise<void> {
    return this.#file.tryRead(target, offset) || this.#readLater(target, offset);
  }

  async #readLater(target: Uint8Array, offset: number): Promise<void> {
    do await this.#file.load(offset, target.length);
    while (!this.#file.tryRead(target, offset));
  }

  reset(): void {
    this.#file.invalidateAll();
  }
}

class Plain implements Reader {
  readonly #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  read(target: Uint8Array, offset: number): boolean | Promise<void> {
    const got = readNow(this.#fd, target, 0, target.length, offset);
    return got === target.length || this.#readLater(target, offset);
  }

  #readLater(target: Uint8Array, offset: number): Promise<void> {
    return new Promise((resolve, reject) => {
      read(this.#fd, target, 0, target.length, offset, (error, got) => {
        if (error === null && got === target.length) resolve();
        else reject(error ?? new RangeError(`${got} bytes at ${offset}`));
      });
    });
  }

  reset(): void {}
}

/** Takes what fs.aio-max-nr leaves, until this thread ends. */
function useUpAio(): void {
  const memory = alignedBytes(4096, 4096);
  for (let depth = 4096; depth >= 1; depth >>= 1) {
    try {
      for (;;) new AioQueue(depth, memory, () => {});
    } catch {}
  }
}

async function run(reader: Reader, job: ReadJob): Promise<JobResult> {
  if (job.fresh) reader.reset();
  const { offsets, bytes, depth } = job;
  let next = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = performance.now();
  const end = start + job.seconds * 1000;
  const one = async () => {
    const target = Buffer.alloc(bytes);
    while (next < offsets.length && performance.now() < end) {
      const offset = offsets[next++]!;
      const done = reader.read(target, offset);
      if (typeof done !== 'boolean') await done;
      else if (next % HITS_IN_A_ROW === 0) await setImmediate();
      assert.equal(target.readDoubleLE(0), offset);
    }
  };
  await Promise.all(Array.from({ length: depth }, one));
  const seconds = (performance.now() - start) / 1000;
  delay.disable();
  return { reads: next, seconds, blockedMs: delay.max / 1e6 };
}

const { reader: name, path } = workerData as ReaderData;
if (name === 'no aio') useUpAio();
const fd = openSync(path, 'r');
const reader = name === 'plain' ? new Plain(fd) : new Blocks(fd, path);
// Makes the queue now, before another thread has taken what there is.
if (name === 'direct') await reader.read(Buffer.alloc(4096), 0);

parentPort?.on('message', (job: ReadJob) => {
  void run(reader, job).then((result) => parentPort?.postMessage(result));
});
parentPort?.postMessage('ready');

/** Threads that read a blob of this thread's cache, each through its own handle, by the daemon's own calls. */
import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { type BlobCalls, blobHandlers } from '../../src/blockd/blob-calls.js';
import { DemandWatch } from '../../src/blockd/demand-watch.js';
import { ThreadCalls } from '../../src/blockd/thread-calls.js';
import { ThreadProgram } from '../../src/io/start-thread.js';

const readingThread = new ThreadProgram(import.meta.url, './blob-reading-thread');

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Calls from the main thread to a reader thread; reads reject on a wrong byte. */
export type ReaderCalls = {
  /** Opens the blob. Call it first. */
  open(nothing: undefined): void;
  read(range: Range): void;
  tryRead(range: Range): boolean;
  load(range: Range): void;
  invalidate(range: Range): boolean;
  readAtRandom(how: {
    readonly seed: number;
    readonly reads: number;
    /** Share of the reads that invalidate first. */
    readonly invalidateShare: number;
    readonly parallel: number;
  }): void;
  close(nothing: undefined): void;
};

export type ReadingThread = ThreadCalls<ReaderCalls, BlobCalls>;

/** Runs `work` with `count` threads that read the blob of `open`, then closes them. */
export async function withReadingThreads(
  open: Parameters<typeof blobHandlers>[0],
  count: number,
  work: (threads: readonly ReadingThread[]) => Promise<void>,
): Promise<void> {
  const workers: Worker[] = [];
  const threads: ReadingThread[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const worker = readingThread.start({});
      workers.push(worker);
      const thread: ReadingThread = new ThreadCalls(
        worker,
        blobHandlers(open, new DemandWatch()).handlers,
      );
      threads.push(thread);
      await once(worker, 'online');
      await thread.call('open', undefined);
    }
    await work(threads);
    for (const thread of threads) await thread.call('close', undefined);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

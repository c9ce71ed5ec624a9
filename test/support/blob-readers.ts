/** Threads that read one blob of a cache, each through its own handle, as the daemon's do. */
import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { type Handlers, ThreadCalls } from '../../src/blockd/thread-calls.js';
import type { BlobShare } from '../../src/cache/blob-reader.js';
import type { BlockCache } from '../../src/cache/block-cache.js';
import type { CachedBlob } from '../../src/cache/cached-blob.js';
import type { HeldCopies } from '../../src/cache/held-chunks.js';
import { ThreadProgram } from '../../src/io/start-thread.js';
import type { BlobDouble } from './blob-double.js';

const readingThread = new ThreadProgram(import.meta.url, './blob-reading-thread');

interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Calls from a reader thread to the main thread. */
export type ReaderCalls = {
  fetch(range: Range & { readonly waitMs: number | undefined }): HeldCopies | undefined;
  distrusted(range: Range): void;
  lost(range: Range & { readonly problem: string }): void;
  closed(nothing: undefined): void;
};

/** Calls from the main thread to a reader thread; reads reject on a wrong byte. */
export type ThreadsCalls = {
  read(range: Range): void;
  readLocal(range: Range): boolean;
  load(range: Range): void;
  forget(range: Range): boolean;
  readAtRandom(how: {
    readonly seed: number;
    readonly reads: number;
    /** Share of the reads that forget first. */
    readonly forgetShare: number;
    readonly parallel: number;
  }): void;
  close(nothing: undefined): void;
};

export type ReadingThread = ThreadCalls<ThreadsCalls, ReaderCalls>;

/** Runs `work` with `count` threads, then closes them. */
export async function withReadingThreads(
  cache: BlockCache,
  blob: BlobDouble,
  count: number,
  work: (threads: readonly ReadingThread[]) => Promise<void>,
): Promise<void> {
  const workers: Worker[] = [];
  const threads: ReadingThread[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const handle = await cache.openBlob(blob);
      const worker = readingThread.start({
        workerData: handle.share(),
      });
      workers.push(worker);
      threads.push(new ThreadCalls<ThreadsCalls, ReaderCalls>(worker, handlersOf(handle)));
      await once(worker, 'online');
    }
    await work(threads);
    for (const thread of threads) await thread.call('close', undefined);
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

/** Threads that read a blob outside any cache; `fetch` stores missing chunks. The caller must terminate them. */
export function startReadingThreads(
  share: BlobShare,
  count: number,
  fetch: (offset: number, length: number) => Promise<void>,
): { worker: Worker; thread: ReadingThread }[] {
  return Array.from({ length: count }, () => {
    const worker = readingThread.start({ workerData: share });
    const thread = new ThreadCalls<ThreadsCalls, ReaderCalls>(worker, {
      fetch: async ({ offset, length }) => {
        await fetch(offset, length);
        return undefined;
      },
      distrusted: () => {},
      lost: ({ problem }) => {
        throw new TypeError(problem);
      },
      closed: () => {},
    });
    return { worker, thread };
  });
}

function handlersOf(handle: CachedBlob): Handlers<ReaderCalls> {
  return {
    fetch: ({ offset, length, waitMs }) => handle.fetch(offset, length, waitMs),
    distrusted: ({ offset, length }) => handle.distrusted(offset, length),
    lost: ({ offset, length, problem }) => handle.lost(offset, length, problem),
    closed: () => handle.close(),
  };
}

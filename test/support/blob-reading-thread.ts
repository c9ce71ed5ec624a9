/** A thread that reads a blob of another thread's cache, and compares every byte with distinctBytes(). */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { ThreadCalls } from '../../src/blockd/thread-calls.js';
import { BlobReader, type BlobShare } from '../../src/cache/blob-reader.js';
import { HeldChunks } from '../../src/cache/held-chunks.js';
import { readFully } from '../../src/io/random-access-file.js';
import { distinctBytes } from './blob-double.js';
import type { ReaderCalls, ThreadsCalls } from './blob-readers.js';
import { seededRandom } from './cache-crashing-file.js';

const share = workerData as BlobShare;
const content = distinctBytes(share.sizeBytes);
const main = new ThreadCalls<ReaderCalls, ThreadsCalls>(parentPort!, {
  read: async ({ offset, length }) => await assertReads(offset, length),
  readLocal: ({ offset, length }) => blob.readLocal(new Uint8Array(length), offset),
  load: async ({ offset, length }) => await blob.load(offset, length),
  forget: ({ offset, length }) => blob.forget(offset, length),
  readAtRandom: async ({ seed, reads, forgetShare, parallel }) => {
    const random = seededRandom(seed);
    let left = reads;
    const reader = async () => {
      while (left-- > 0) {
        const length = 1 + Math.floor(random() * 150_000);
        const offset = Math.floor(random() * (content.length - length));
        if (random() < forgetShare) blob.forget(offset, length);
        await assertReads(offset, length, mounted);
      }
    };
    await Promise.all(Array.from({ length: parallel }, reader));
  },
  close: () => blob.close(),
});
const blob = new BlobReader(share, new HeldChunks(), true, {
  fetch: (offset, length, waitMs) => main.call('fetch', { offset, length, waitMs }),
  distrusted: (offset, length) => main.tell('distrusted', { offset, length }),
  lost: (offset, length, problem) => main.tell('lost', { offset, length, problem }),
  closed: () => main.tell('closed', undefined),
});

/** The blob as a mounted disk reads it: until its deadline. */
const mounted = {
  label: blob.label,
  sizeBytes: blob.sizeBytes,
  readWaitMs: 30_000,
  readLocal: (target: Uint8Array, offset: number) => blob.readLocal(target, offset),
  load: (offset: number, length: number, deadlineMs?: number) =>
    blob.load(offset, length, deadlineMs),
  forget: (offset: number, length: number) => blob.forget(offset, length),
  close: () => blob.close(),
};

async function assertReads(
  offset: number,
  length: number,
  file: Parameters<typeof readFully>[0] = blob,
): Promise<void> {
  const found = Buffer.alloc(length);
  await readFully(file, found, offset);
  assert.ok(found.equals(content.subarray(offset, offset + length)), `[${offset}, +${length})`);
}

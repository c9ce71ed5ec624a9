/** A thread that reads a blob of another thread's cache, and compares every byte with distinctBytes(). */
import assert from 'node:assert/strict';
import { parentPort } from 'node:worker_threads';
import { type BlobCalls, RemoteBlobs } from '../../src/blockd/blob-calls.js';
import { ThreadCalls } from '../../src/blockd/thread-calls.js';
import type { BlobReader } from '../../src/cache/blob-reader.js';
import { readFully } from '../../src/io/random-access-file.js';
import { distinctBytes } from './blob-double.js';
import type { ReaderCalls } from './blob-readers.js';
import { seededRandom } from './cache-crashing-file.js';

/** The main thread knows which blob it is. */
const REQUEST = { id: '', address: { host: '', repository: '', digest: '', sizeBytes: undefined } };

let blob: BlobReader;
let content: Buffer;

const main = new ThreadCalls<BlobCalls, ReaderCalls>(parentPort!, {
  open: async () => {
    blob = await new RemoteBlobs(main).open(REQUEST);
    content = distinctBytes(blob.sizeBytes);
  },
  read: async ({ offset, length }) => await assertReads(offset, length),
  tryRead: ({ offset, length }) => blob.tryRead(new Uint8Array(length), offset),
  load: async ({ offset, length }) => await blob.load(offset, length),
  invalidate: ({ offset, length }) => blob.invalidate(offset, length),
  readAtRandom: async ({ seed, reads, invalidateShare, parallel }) => {
    const random = seededRandom(seed);
    let left = reads;
    const reader = async () => {
      while (left-- > 0) {
        const length = 1 + Math.floor(random() * 150_000);
        const offset = Math.floor(random() * (content.length - length));
        if (random() < invalidateShare) blob.invalidate(offset, length);
        await assertReads(offset, length, mounted());
      }
    };
    await Promise.all(Array.from({ length: parallel }, reader));
  },
  close: () => blob.close(),
});

/** The blob as a mounted disk reads it: until its deadline. */
function mounted(): Parameters<typeof readFully>[0] {
  return {
    label: blob.label,
    sizeBytes: blob.sizeBytes,
    readWaitMs: 30_000,
    tryRead: (target, offset) => blob.tryRead(target, offset),
    load: (offset, length, deadlineMs) => blob.load(offset, length, deadlineMs),
    invalidate: (offset, length) => blob.invalidate(offset, length),
    close: () => blob.close(),
  };
}

async function assertReads(
  offset: number,
  length: number,
  file: Parameters<typeof readFully>[0] = blob,
): Promise<void> {
  const found = Buffer.alloc(length);
  await readFully(file, found, offset);
  assert.ok(found.equals(content.subarray(offset, offset + length)), `[${offset}, +${length})`);
}

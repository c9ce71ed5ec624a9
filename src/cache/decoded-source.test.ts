/**
 * Goal: the cache keeps what a decoder made of another file as it keeps a registry's blobs: correct, fetched once, there
 * after a restart, and within the capacity while the blobs are open.
 * Method: files of gzip members, each with one chunk of content; one blob is decoded from a local file, another one from
 * a blob of the same cache.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { BlobDouble, distinctBytes } from '../../test/support/blob-double.js';
import {
  blobFiles,
  cacheDirectory,
  removeCacheDirectories,
} from '../../test/support/cache-directories.js';
import { OpenBlob, ROOM, read, withCache } from '../../test/support/cache-scene.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { LocalFile } from '../io/local-file.js';
import { CHUNK_BYTES, type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { AttemptOptions, RangeFill } from '../io/ranged-source.js';
import type { BlobKey } from './blob-key.js';
import type { BlobSource } from './blob-source.js';

after(removeCacheDirectories);

/** Content as gzip members of one chunk each, and where each of them begins. */
class Members {
  readonly bytes: Buffer;
  readonly content: Buffer;
  readonly begins: readonly number[];

  constructor(content: Buffer) {
    const members: Buffer[] = [];
    const begins = [0];
    for (let at = 0; at < content.length; at += CHUNK_BYTES) {
      const member = gzipSync(content.subarray(at, at + CHUNK_BYTES), { level: 1 });
      members.push(member);
      begins.push(begins.at(-1)! + member.length);
    }
    this.content = content;
    this.bytes = Buffer.concat(members);
    this.begins = begins;
  }
}

/** Inflates the members of another file. */
class GunzipSource implements BlobSource {
  readonly key: BlobKey;
  readonly label: string;
  decodedBytes = 0;
  readonly #file: RandomAccessFile;
  readonly #members: Members;

  constructor(file: RandomAccessFile, members: Members) {
    const derived = createHash('sha256').update('gunzip of ').update(members.bytes);
    const digest = `sha256:${derived.digest('hex')}`;
    this.key = { origin: 'gunzip', digest, sizeBytes: members.content.length };
    this.label = `gunzip of ${file.label}`;
    this.#file = file;
    this.#members = members;
  }

  async attempt(fill: RangeFill, { signal }: AttemptOptions = {}): Promise<undefined> {
    for (; fill.filled < fill.bytes.length; ) {
      signal?.throwIfAborted();
      const member = (fill.offset + fill.filled) / CHUNK_BYTES;
      const { begins } = this.#members;
      const packed = Buffer.alloc(begins[member + 1]! - begins[member]!);
      await readFully(this.#file, packed, begins[member]!);
      const bytes = gunzipSync(packed);
      fill.bytes.set(bytes, fill.filled);
      fill.filled += bytes.length;
      this.decodedBytes += bytes.length;
    }
  }
}

const members = new Members(distinctBytes(40 * CHUNK_BYTES + 777, 5));

test('a file decoded from a local one is decoded once, also over a restart', async () => {
  const directory = cacheDirectory();
  const path = join(cacheDirectory(), 'packed');
  writeFileSync(path, members.bytes);
  const file = LocalFile.open(path);
  const cacheOnce = async () => {
    const source = new GunzipSource(file, members);
    await withCache(
      async (cache) => {
        const blob = await OpenBlob.open(cache, source);
        assert.ok((await read(blob, 0, blob.sizeBytes)).equals(members.content));
        assert.ok(blob.tryRead(new Uint8Array(100), 70_000));
      },
      ROOM,
      directory,
    );
    return source.decodedBytes;
  };
  assert.equal(await cacheOnce(), members.content.length);
  assert.equal(await cacheOnce(), 0);
  file.close();
});

test('decoded blobs and the blob that they are decoded from stay within the capacity', async () => {
  const capacityBytes = 24 * CHUNK_BYTES;
  await withCache(
    async (cache, directory) => {
      const packed = await OpenBlob.open(cache, new BlobDouble(members.bytes));
      const decoded = await OpenBlob.open(cache, new GunzipSource(packed, members));
      for (let round = 0; round < 3; round++) {
        for (let at = 0; at < decoded.sizeBytes; at += 100_000) {
          const length = Math.min(100_000, decoded.sizeBytes - at);
          const found = await read(decoded, at, length);
          assert.ok(found.equals(members.content.subarray(at, at + length)), `at ${at}`);
          const cachedBytes = decoded.cachedBytes + packed.cachedBytes;
          assert.ok(cachedBytes <= capacityBytes, `${cachedBytes} bytes are cached`);
        }
        // The hand of the clock goes round once a second.
        await new Promise((resolve) => setTimeout(resolve, 1_100));
      }
      assert.ok(decoded.cachedBytes > 0 && packed.cachedBytes > 0);
      const files = blobFiles(directory);
      const diskBytes = files.reduce((sum, path) => sum + statSync(path).blocks * 512, 0);
      // Besides the chunks, each file has its bitmaps.
      assert.ok(diskBytes <= capacityBytes + files.length * CHUNK_BYTES, `${diskBytes} bytes`);
    },
    { capacityBytes, reserveBytes: 0 },
  );
});

test('the error of a decoder reaches the read unchanged', async () => {
  await withCache(async (cache) => {
    const { key } = new BlobDouble(members.content);
    const attempt = async () => {
      throw new ObdError(ErrorCodes.Corrupt, 'Cannot inflate: a member has no header');
    };
    const blob = await OpenBlob.open(cache, { key, label: 'broken', attempt });
    await assert.rejects(read(blob, 0, 10), {
      code: ErrorCodes.Corrupt,
      message: 'Cannot inflate: a member has no header',
    });
  });
});

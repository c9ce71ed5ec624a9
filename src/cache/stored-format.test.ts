/**
 * Goal: the cache reads files that earlier versions wrote: same names, same trailer.
 * Method: a file made by hand as docs/formats/block-cache.md says, with no code of the cache.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { crc32c } from '@node-rs/crc32';
import { BlobDouble, distinctBytes, gone } from '../../test/support/blob-double.js';
import { cacheDirectory, removeCacheDirectories } from '../../test/support/cache-directories.js';
import { OpenBlob, ROOM, read, withCache } from '../../test/support/cache-scene.js';

after(removeCacheDirectories);

const CHUNK = 65_536;
const PAGE = 4096;

test('a file of version 1, at REGISTRY/HEX, is read without a fetch', async () => {
  const content = distinctBytes(5 * CHUNK + 100);
  const hex = createHash('sha256').update(content).digest('hex');
  const slot = Buffer.alloc(PAGE);
  slot.write('obdcache', 0, 'latin1');
  slot.writeUInt32LE(1, 8);
  slot.writeUInt32LE(CHUNK, 12);
  slot.writeBigUInt64LE(BigInt(content.length), 16);
  slot.writeBigUInt64LE(7n, 24);
  slot.write(hex, 32, 'hex');
  // Six chunks, of which chunk 3 is absent.
  slot.writeUInt8(0b11_0111, 64);
  slot.writeUInt32LE(crc32c(slot.subarray(0, 65)), 65);
  const padding = Buffer.alloc(Math.ceil(content.length / PAGE) * PAGE - content.length);
  const stored = Buffer.from(content);
  stored.fill(0, 3 * CHUNK, 4 * CHUNK);
  // The sequence number is odd: slot 1.
  const file = Buffer.concat([stored, padding, Buffer.alloc(PAGE), slot]);

  const directory = cacheDirectory();
  const folder = join(directory, 'blobs', 'registry.example:5000');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, hex), file);
  await withCache(
    async (cache, _directory, faults) => {
      const source = new BlobDouble(content, 'registry.example:5000/app');
      const blob = await OpenBlob.open(cache, source);
      assert.equal(blob.cachedBytes, content.length - CHUNK);
      source.before = gone;
      assert.ok((await read(blob, 0, 3 * CHUNK)).equals(content.subarray(0, 3 * CHUNK)));
      const rest = content.length - 4 * CHUNK;
      assert.ok((await read(blob, 4 * CHUNK, rest)).equals(content.subarray(4 * CHUNK)));
      assert.deepEqual([source.requests, faults], [[], []]);
      await assert.rejects(read(blob, 3 * CHUNK, 1), /does not have it/);
    },
    ROOM,
    directory,
  );
});

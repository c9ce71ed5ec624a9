/** Images of layers from a registry in memory, opened through a real cache, for tests. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { BlockCache } from '../../src/cache/block-cache.js';
import type { ImageConfig } from '../../src/image/image-config.js';
import { type BlobAddress, type OpenedImage, openImage } from '../../src/image/open-image.js';
import type { IndexMemory } from '../../src/io/index-budget.js';
import { readFully } from '../../src/io/random-access-file.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { TarWrapperWriter } from '../../src/layers/tar-wrapper.js';
import { CommittedLayerWriter } from '../../src/lsmt/committed-writer.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { ZFileWriter } from '../../src/zfile/zfile-writer.js';
import { BlobRegistry } from './blob-registry.js';
import { cacheDirectory } from './cache-directories.js';
import { OpenBlob } from './cache-scene.js';
import { MemorySink } from './memory-file.js';
import { UNLIMITED_INDEX_MEMORY } from './unlimited-memory.js';

export const decoded = new DecodedBlocks(1 << 20);
export const repoBlobUrl = 'https://registry.example/v2/app/blobs';

export interface ImageScene {
  readonly registry: BlobRegistry;
  readonly directory: string;
  open(config: Partial<ImageConfig>, memory?: IndexMemory): Promise<OpenedImage<OpenBlob>>;
}

export async function withScene(work: (scene: ImageScene) => Promise<void>): Promise<void> {
  const directory = cacheDirectory();
  const cache = await BlockCache.open(join(directory, 'cache'), {
    capacityBytes: 1 << 30,
    reserveBytes: 0,
  });
  const registry = new BlobRegistry();
  const dependencies = {
    openBlob: async ({ host, repository, digest, sizeBytes }: BlobAddress) =>
      await OpenBlob.open(cache, await registry.find(host, repository, digest, sizeBytes)),
    formats: LAYER_FORMATS,
    decoded,
  };
  const open = (config: Partial<ImageConfig>, memory: IndexMemory = UNLIMITED_INDEX_MEMORY) =>
    openImage({ repoBlobUrl, lowers: [], ...config }, { ...dependencies, memory });
  try {
    await work({ registry, directory, open });
    await cache.close();
    assert.deepEqual(openPaths(directory), [], 'files left open');
  } finally {
    await cache.close();
  }
}

/** The files below `directory` that this process has open. */
function openPaths(directory: string): string[] {
  const paths: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      paths.push(readlinkSync(`/proc/self/fd/${fd}`));
    } catch {
      // The descriptor that readdir itself had open.
    }
  }
  return paths.filter((path) => path.startsWith(directory));
}

/** A layer with `pages` pages of noise and words at `at`, in its tar. */
export function layer(at: number, pages: number, seed: number): Buffer {
  const sink = new MemorySink();
  const tar = new TarWrapperWriter(sink);
  const zfile = new ZFileWriter(tar, { algorithm: 'lz4', blockBytes: 4096 });
  const writer = new CommittedLayerWriter(zfile, { virtualBytes: 1 << 30 });
  for (let i = 0; i < pages; i++) writer.write(at + i * 4096, page(at + i * 4096, seed));
  for (const each of [writer, zfile, tar]) each.finish();
  return sink.written;
}

/** Half noise, so that it compresses to about a half. */
export function page(at: number, seed: number): Buffer {
  const bytes = Buffer.alloc(4096, `layer ${seed} `);
  for (let i = 0; i < 2048; i += 4) {
    bytes.writeUInt32LE(Math.imul(at + i + seed, 2654435761) >>> 0, i);
  }
  return bytes;
}

export async function assertPage(
  image: OpenedImage<OpenBlob>,
  at: number,
  seed: number,
): Promise<void> {
  const found = Buffer.alloc(4096);
  await readFully(image.disk, found, at);
  assert.ok(found.equals(page(at, seed)), `page at ${at}`);
}

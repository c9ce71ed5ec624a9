/** Layer blobs with a hash tree, as obdconv writes them, for tests. */
import { LayerBlobWriter } from '../../src/convert/layer-blob-writer.js';
import type { TreeAddress } from '../../src/zfile/hash-tree.js';
import type { ZFileOptions } from '../../src/zfile/zfile-writer.js';
import { MemorySink } from './memory-file.js';

export const PAGE_BYTES = 4096;

export interface ProvedLayer {
  readonly blob: Buffer;
  readonly hashTree: TreeAddress;
}

/** A layer of so many pages from the start of the disk, each as `pageOf` gives it. */
export function provedLayer(
  pages: number,
  pageOf: (page: number) => Buffer,
  form: ZFileOptions = { algorithm: 'lz4', blockBytes: 4096 },
): ProvedLayer {
  const sink = new MemorySink();
  const writer = new LayerBlobWriter(sink, form, { virtualBytes: 1 << 30 });
  for (let i = 0; i < pages; i++) writer.layer.write(i * PAGE_BYTES, pageOf(i));
  const hashTree = writer.finish();
  return { blob: sink.written, hashTree };
}

/** Half noise, so that it compresses to about a half; no two pages are alike. */
export function noisyPage(page: number, seed: number): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES, `page ${page} of ${seed} `);
  for (let i = 0; i < PAGE_BYTES / 2; i += 4) {
    bytes.writeUInt32LE(Math.imul(page * PAGE_BYTES + i + seed, 2654435761) >>> 0, i);
  }
  return bytes;
}

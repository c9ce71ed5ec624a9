/** Images for tests that serve blocks: a disk, cut into layers, each a blob as a registry has it. */
import { CommittedLayerWriter } from '../../src/lsmt/committed-writer.js';
import { MemorySink } from './memory-file.js';
import { pagesOf } from './virtual-disks.js';
import { zfileOf } from './zfile-samples.js';

const BLOCK_BYTES = 4096;

export interface BlockImage {
  /** The stacked disk of the layers. */
  readonly disk: Buffer;
  /** Bottom first. */
  readonly blobs: readonly Buffer[];
}

/** Two layers: pages that all differ with a hole, and every third page of the second half over them. */
export function twoLayers(sizeBytes: number): BlockImage {
  const disk = pagesOf(sizeBytes);
  disk.fill(0, sizeBytes / 4, sizeBytes / 4 + 16 * BLOCK_BYTES);
  const bottom = layerOf(disk, () => true);
  const isUpper = (page: number) => page * BLOCK_BYTES >= sizeBytes / 2 && page % 3 === 0;
  for (let at = 0; at < sizeBytes; at += BLOCK_BYTES) {
    if (isUpper(at / BLOCK_BYTES)) disk.fill((at / BLOCK_BYTES) % 255 || 1, at, at + BLOCK_BYTES);
  }
  return { disk, blobs: [bottom, layerOf(disk, isUpper)] };
}

/** The chosen pages of `disk` that are not all zeroes, as a layer in a ZFile. */
export function layerOf(disk: Buffer, chosen: (page: number) => boolean): Buffer {
  const sink = new MemorySink();
  const writer = new CommittedLayerWriter(sink, { virtualBytes: disk.length });
  for (let at = 0; at < disk.length; at += BLOCK_BYTES) {
    const page = disk.subarray(at, at + BLOCK_BYTES);
    if (chosen(at / BLOCK_BYTES) && page.some((byte) => byte !== 0)) writer.write(at, page);
  }
  writer.finish();
  return zfileOf(sink.written, { algorithm: 'lz4', blockBytes: BLOCK_BYTES });
}

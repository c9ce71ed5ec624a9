/**
 * An image of twelve layers as a converter makes them: one large one at the bottom, and smaller ones whose
 * blocks are scattered over the whole disk and hide each other; and the same disk as one raw file, and as
 * compressed qcow2 if wanted, for comparison.
 */
import { closeSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { CommittedLayerWriter } from '../src/lsmt/committed-writer.js';
import { ZFileWriter } from '../src/zfile/zfile-writer.js';
import { PAGE_BYTES, PageContent } from './page-content.js';
import { run } from './programs.js';

const LAYERS = 12;
export const DISK_BYTES = 256 << 20;
/** Of the disk: what the bottom layer fills of it, and each upper one. */
const BOTTOM_SHARE = 11 / 16;
const UPPER_SHARE = 1 / 32;
/** Length of one run of blocks in an upper layer. */
const EXTENT_PAGES_MAX = 32;

export interface SampleImage {
  /** Bottom first. */
  readonly layers: readonly string[];
  readonly raw: string;
  /** Sum over all layers, as stored. */
  readonly layerBytes: number;
}

export function makeSampleImage(folder: string, diskBytes: number): SampleImage {
  const raw = join(folder, 'disk.raw');
  const content = new PageContent(12345);
  const disk = openSync(raw, 'w');
  ftruncateSync(disk, diskBytes);
  const layers: string[] = [];
  for (let i = 0; i < LAYERS; i++) {
    const path = join(folder, `layer-${i}`);
    const ranges: Range[] =
      i === 0 ? [[0, diskBytes * BOTTOM_SHARE]] : scattered(content, diskBytes);
    writeLayer(path, ranges, diskBytes, content, disk);
    layers.push(path);
  }
  closeSync(disk);
  const layerBytes = layers.reduce((sum, path) => sum + statSync(path).size, 0);
  return { layers, raw, layerBytes };
}

/** The disk as compressed qcow2. */
export async function makeQcow2(image: SampleImage, path: string): Promise<void> {
  await run('qemu-img', [
    'convert',
    ...['-c', '-W', '-m', '4', '-f', 'raw', '-O', 'qcow2'],
    ...[image.raw, path],
  ]);
}

type Range = readonly [offset: number, length: number];

/** UPPER_SHARE of the disk in ascending ranges with gaps between them. */
function scattered(content: PageContent, diskBytes: number): Range[] {
  const ranges: Range[] = [];
  const rangePages = (1 + EXTENT_PAGES_MAX) / 2;
  const periodPages = rangePages / UPPER_SHARE;
  const gapPages = Math.floor(2 * (periodPages - rangePages));
  for (let at = content.random(gapPages) * PAGE_BYTES; ; ) {
    const length = (1 + content.random(EXTENT_PAGES_MAX)) * PAGE_BYTES;
    if (at + length > diskBytes) return ranges;
    ranges.push([at, length]);
    at += length + (1 + content.random(gapPages)) * PAGE_BYTES;
  }
}

function writeLayer(
  path: string,
  ranges: Range[],
  diskBytes: number,
  content: PageContent,
  disk: number,
): void {
  const file = openSync(path, 'w');
  const sink = {
    write: (bytes: Uint8Array) => void writeSync(file, bytes),
    writeAt: (bytes: Uint8Array, offset: number) =>
      void writeSync(file, bytes, 0, bytes.length, offset),
  };
  const zfile = new ZFileWriter(sink, { algorithm: 'lz4', blockBytes: PAGE_BYTES });
  const layer = new CommittedLayerWriter(zfile, { virtualBytes: diskBytes });
  const piece = Buffer.alloc(1 << 20);
  for (const [offset, length] of ranges) {
    for (let done = 0; done < length; done += piece.length) {
      const bytes = piece.subarray(0, Math.min(piece.length, length - done));
      content.fill(bytes);
      layer.write(offset + done, bytes);
      writeSync(disk, bytes, 0, bytes.length, offset + done);
    }
  }
  layer.finish();
  zfile.finish();
  closeSync(file);
}

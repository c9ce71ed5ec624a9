/**
 * An image of twelve layers as a converter makes them: one large one at the bottom, and smaller ones whose
 * blocks are scattered over the whole disk and hide each other; and the same disk as one raw file and as
 * compressed qcow2, for comparison.
 */
import { closeSync, ftruncateSync, openSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { CommittedLayerWriter } from '../src/lsmt/committed-writer.js';
import { ZFileWriter } from '../src/zfile/zfile-writer.js';
import { PAGE_BYTES, PageContent } from './page-content.js';
import { run } from './programs.js';

const LAYERS = 12;
export const DISK_BYTES = 256 << 20;
const BOTTOM_BYTES = 176 << 20;
const UPPER_BYTES = 8 << 20;
/** Of one run of blocks in an upper layer. */
const EXTENT_PAGES_MAX = 32;

export interface SampleImage {
  /** Bottom first. */
  readonly layers: readonly string[];
  readonly raw: string;
  readonly qcow2: string;
  /** Of all layers, as stored. */
  readonly layerBytes: number;
  readonly qcow2Bytes: number;
}

export async function makeSampleImage(folder: string): Promise<SampleImage> {
  const raw = join(folder, 'disk.raw');
  const content = new PageContent(12345);
  const disk = openSync(raw, 'w');
  ftruncateSync(disk, DISK_BYTES);
  const layers: string[] = [];
  for (let i = 0; i < LAYERS; i++) {
    const path = join(folder, `layer-${i}`);
    writeLayer(path, i === 0 ? [[0, BOTTOM_BYTES]] : scattered(content), content, disk);
    layers.push(path);
  }
  closeSync(disk);
  const qcow2 = join(folder, 'disk.qcow2');
  await run('qemu-img', ['convert', '-c', '-W', '-m', '4', '-f', 'raw', '-O', 'qcow2', raw, qcow2]);
  const layerBytes = layers.reduce((sum, path) => sum + statSync(path).size, 0);
  return { layers, raw, qcow2, layerBytes, qcow2Bytes: statSync(qcow2).size };
}

type Range = readonly [offset: number, length: number];

/** UPPER_BYTES in ascending ranges with gaps between them. */
function scattered(content: PageContent): Range[] {
  const ranges: Range[] = [];
  const rangePages = (1 + EXTENT_PAGES_MAX) / 2;
  const periodPages = (rangePages * DISK_BYTES) / UPPER_BYTES;
  const gapPages = Math.floor(2 * (periodPages - rangePages));
  for (let at = content.random(gapPages) * PAGE_BYTES; ; ) {
    const length = (1 + content.random(EXTENT_PAGES_MAX)) * PAGE_BYTES;
    if (at + length > DISK_BYTES) return ranges;
    ranges.push([at, length]);
    at += length + (1 + content.random(gapPages)) * PAGE_BYTES;
  }
}

function writeLayer(path: string, ranges: Range[], content: PageContent, disk: number): void {
  const file = openSync(path, 'w');
  const sink = {
    write: (bytes: Uint8Array) => void writeSync(file, bytes),
    writeAt: (bytes: Uint8Array, offset: number) =>
      void writeSync(file, bytes, 0, bytes.length, offset),
  };
  const zfile = new ZFileWriter(sink, { algorithm: 'lz4', blockBytes: PAGE_BYTES });
  const layer = new CommittedLayerWriter(zfile, { virtualBytes: DISK_BYTES });
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

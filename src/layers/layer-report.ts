/** Reports the facts about a layer file: wrapper, compression, identity, and its share of the disk. */
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { LocalFile } from '../io/local-file.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { type Segments, ZEROES } from '../lsmt/segments.js';
import { Algorithms } from '../zfile/block-codec.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { openLayerFile } from './layer-file.js';
import { type LayerDependencies, readHead } from './open-layer.js';
import { unwrapTar } from './tar-wrapper.js';

export interface LayerReport {
  readonly file: string;
  readonly form: 'finished' | 'writable';
  readonly fileBytes: number;
  readonly tar: boolean;
  readonly compression: CompressionReport | null;
  readonly uuid: string;
  readonly parentUuid: string;
  readonly userTag: string;
  readonly virtualBytes: number;
  /** Runs of sectors, neighbours joined. */
  readonly segments: number;
  readonly dataBytes: number;
  /** Sectors that read as zeroes and hide the layers below. */
  readonly zeroedBytes: number;
}

interface CompressionReport {
  readonly algorithm: string;
  readonly blockBytes: number;
  readonly blocks: number;
  readonly decompressedBytes: number;
}

/** @throws {ObdError} as openLayerFile() does. */
export async function reportLayer(
  name: string,
  target: string | undefined,
  dependencies: LayerDependencies,
): Promise<LayerReport> {
  const layer = await openLayerFile(name, dependencies, target);
  try {
    return {
      file: name,
      form: layer.label === name ? 'finished' : 'writable',
      ...(await outsideOf(layer.label)),
      compression: compressionOf(layer.sources[0]!),
      uuid: layer.uuid,
      parentUuid: layer.parentUuid,
      userTag: layer.userTag,
      virtualBytes: layer.virtualBytes,
      segments: layer.segments.count,
      ...amounts(layer.segments),
    };
  } finally {
    layer.close();
  }
}

/** Reads the start of the file again: an opened layer no longer shows whether it was in a tar. */
async function outsideOf(path: string): Promise<Pick<LayerReport, 'fileBytes' | 'tar'>> {
  const file = LocalFile.open(path);
  try {
    return { fileBytes: file.sizeBytes, tar: unwrapTar(file, await readHead(file)).start > 0 };
  } finally {
    file.close();
  }
}

function compressionOf(data: RandomAccessFile): CompressionReport | null {
  if (!(data instanceof ZFileReader)) return null;
  const { blockBytes, blocks, decompressedBytes } = data.layout;
  const algorithm = data.layout.algorithm === Algorithms.lz4 ? 'lz4' : 'zstd';
  return { algorithm, blockBytes, blocks, decompressedBytes };
}

function amounts({ count, starts, ends, sources }: Segments) {
  let data = 0;
  let zeroed = 0;
  for (let i = 0; i < count; i++) {
    const sectors = ends[i]! - starts[i]!;
    if (sources[i] === ZEROES) zeroed += sectors;
    else data += sectors;
  }
  return { dataBytes: data * SECTOR_BYTES, zeroedBytes: zeroed * SECTOR_BYTES };
}

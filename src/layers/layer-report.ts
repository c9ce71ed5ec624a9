/** Reports the facts about a layer file: wrapper, compression, identity, and its share of the disk. */
import { SECTOR_BYTES } from '../io/block-sizes.js';
import { LocalFile } from '../io/local-file.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { type Segments, ZEROES } from '../lsmt/segments.js';
import { Algorithms } from '../zfile/block-codec.js';
import type { TreeAddress } from '../zfile/hash-tree.js';
import { parseTreeHeader, rootOf, TREE_HEADER_BYTES } from '../zfile/hash-tree-layout.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { openLayerFile } from './layer-file.js';
import { type LayerDependencies, readHead } from './open-layer.js';
import { tarEnd, unwrapTar } from './tar-wrapper.js';

export interface LayerReport {
  readonly file: string;
  readonly form: 'finished' | 'writable';
  readonly fileBytes: number;
  readonly tar: boolean;
  /** Behind the tar; null if there is none. Only an annotation of the image says that it is the right one. */
  readonly hashTree: TreeAddress | null;
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
async function outsideOf(
  path: string,
): Promise<Pick<LayerReport, 'fileBytes' | 'tar' | 'hashTree'>> {
  const file = LocalFile.open(path);
  try {
    const { content, start } = unwrapTar(file, await readHead(file));
    const hashTree = start === 0 ? null : await treeAt(file, tarEnd(start + content.sizeBytes));
    return { fileBytes: file.sizeBytes, tar: start > 0, hashTree };
  } finally {
    file.close();
  }
}

async function treeAt(file: LocalFile, offset: number): Promise<TreeAddress | null> {
  if (offset + TREE_HEADER_BYTES > file.sizeBytes) return null;
  const header = Buffer.alloc(TREE_HEADER_BYTES);
  await readFully(file, header, offset);
  return parseTreeHeader(header) === undefined ? null : { root: rootOf(header), offset };
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

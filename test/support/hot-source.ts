/** Layers for the tests of hot blobs, and hot blobs as they arrive. */
import { createHash } from 'node:crypto';
import type { HotSource } from '../../src/hot-blob/hot-blob-writer.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { HashTree } from '../../src/zfile/hash-tree.js';
import { HashTreeWriter } from '../../src/zfile/hash-tree-writer.js';
import { MemoryFile } from './memory-file.js';

/** A layer that decodes to `content`. Its digest is one of the content: the blob around it does not matter. */
export async function hotSource(content: Buffer): Promise<HotSource> {
  const writer = new HashTreeWriter({ write: () => {} });
  writer.write(content);
  const headHash = Buffer.alloc(32, 1);
  const { tree: stored, root } = writer.finish({ headHash, indexHash: headHash });
  const decoded = new DecodedBlocks(1 << 19);
  const tree = await HashTree.open(new MemoryFile(stored), { root, offset: 0 }, decoded);
  const digest = `sha256:${createHash('sha256').update(content).digest('hex')}`;
  return { digest, root, file: new MemoryFile(content), tree };
}

export async function* piecesOf(bytes: Uint8Array, pieceBytes = 5000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

export async function joined(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(piece);
  return Buffer.concat(parts);
}

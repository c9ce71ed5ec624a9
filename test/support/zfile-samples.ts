/** ZFiles in memory, and content that looks like a layer's, for tests. */
import fc from 'fast-check';
import type { RandomAccessFile } from '../../src/io/random-access-file.js';
import type { Algorithm } from '../../src/zfile/block-codec.js';
import type { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { ZFileReader } from '../../src/zfile/zfile-reader.js';
import { ZFileWriter } from '../../src/zfile/zfile-writer.js';
import { MemorySink } from './memory-file.js';

/** Every form the writer can write. 64 KiB takes only content that compresses. */
export const ZFILE_FORMS: ReadonlyArray<{ algorithm: Algorithm; blockBytes: number }> = (
  ['lz4', 'zstd'] as const
).flatMap((algorithm) =>
  [4096, 8192, 16384, 32768, 65536].map((blockBytes) => ({ algorithm, blockBytes })),
);

/** Runs, repeats and noise, of any length from none to about `bytesMax`; always compressible. */
export function layerContent(bytesMax: number): fc.Arbitrary<Buffer> {
  const run = fc
    .record({ byte: fc.nat(255), count: fc.nat(bytesMax / 8) })
    .map(({ byte, count }) => Buffer.alloc(count, byte));
  const noise = fc.uint8Array({ maxLength: 600, size: 'max' }).map((bytes) => Buffer.from(bytes));
  return fc.array(fc.oneof(run, noise), { maxLength: 10 }).map((parts) => Buffer.concat(parts));
}

/** `content` as a ZFile, written in pieces of `pieceBytes`. */
export function zfileOf(
  content: Uint8Array,
  form: { algorithm: Algorithm; blockBytes: number },
  pieceBytes = content.length + 1,
): Buffer {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, form);
  for (let at = 0; at < content.length; at += pieceBytes) {
    writer.write(content.subarray(at, at + pieceBytes));
  }
  writer.finish();
  return sink.written;
}

export async function openZFile(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<ZFileReader> {
  return await ZFileReader.load(source, await ZFileReader.readLayout(source), decoded);
}

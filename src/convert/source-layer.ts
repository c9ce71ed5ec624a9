/**
 * Passes a layer of the source to an unpacker: the source checks the blob against its descriptor; the blob is
 * decompressed, and checked against the config's diff ID. Both digests cover their streams to the last byte, even if
 * the unpacker stops before that.
 */
import type { ImageSource } from '../oci/image-store.js';
import type { Descriptor } from '../oci/manifest.js';
import { decompress } from '../tar/decompress.js';
import { VerifiedStream } from './verified-stream.js';

export interface SourceLayer {
  readonly descriptor: Descriptor;
  /** Diff ID: digest of the uncompressed tar. */
  readonly diffId: string;
  /** Called with the number of further bytes of the blob that were read. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Runs `unpack` on the layer's tar and returns its result after both digests proved right.
 *
 * @throws {ObdError} `Corrupt`, `Unsupported`; errors of the source and of `unpack`.
 */
export async function unpackLayer<T>(
  source: ImageSource,
  { descriptor, diffId, onBytes }: SourceLayer,
  unpack: (tar: AsyncIterable<Uint8Array>, label: string) => Promise<T>,
): Promise<T> {
  const label = `layer ${descriptor.digest} of ${source.label}`;
  const blob = counted(source.readBlob(descriptor), onBytes);
  // No return(): a compressed stream that ends early leaves the rest of its blob to be read below.
  const open = { [Symbol.asyncIterator]: () => ({ next: () => blob.next() }) };
  const tar = new VerifiedStream(decompress(open, label), { label, digest: diffId });
  try {
    const result = await unpack(tar, label);
    await tar.finish();
    while ((await blob.next()).done !== true);
    return result;
  } finally {
    await tar.close();
    await blob.return();
  }
}

async function* counted(
  pieces: AsyncIterable<Uint8Array>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of pieces) {
    onBytes(piece.length);
    yield piece;
  }
}

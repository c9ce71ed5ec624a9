/**
 * A layer of the source on its way to whoever unpacks it: the blob, checked against its descriptor by the
 * source; decompressed; checked against the config's diff ID. Both digests cover their streams to the last
 * byte, whether or not the one who unpacks read that far.
 */
import type { ImageSource } from '../oci/image-store.js';
import type { Descriptor } from '../oci/manifest.js';
import { decompress } from '../tar/decompress.js';
import { VerifiedStream } from './verified-stream.js';

export interface SourceLayer {
  readonly descriptor: Descriptor;
  /** Of the uncompressed tar. */
  readonly diffId: string;
  /** Told how many more bytes of the blob were read. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Runs `unpack` on the layer's tar and returns its result, once both digests have proved right.
 *
 * @throws {ObdError} `Corrupt`, `Unsupported`; what the source and `unpack` throw.
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

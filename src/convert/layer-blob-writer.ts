/**
 * Writes a layer's blob: the layer in a ZFile in a tar, and behind the tar the hash tree that proves the layer.
 *
 * The tree is not a second file of the tar: a client that unpacks the blob must find one file. Readers of tars end at
 * its two blocks of zeroes, and readers of layers at the end of its file (docs/formats/hash-tree.md).
 */
import { TarWrapperWriter } from '../layers/tar-wrapper.js';
import { CommittedLayerWriter } from '../lsmt/committed-writer.js';
import type { TreeAddress } from '../zfile/hash-tree.js';
import { PROVED_HEAD_BYTES } from '../zfile/hash-tree-layout.js';
import { HashTreeWriter } from '../zfile/hash-tree-writer.js';
import { type RewritableSink, type ZFileOptions, ZFileWriter } from '../zfile/zfile-writer.js';

/** Where the blob is written. */
export interface BlobSink extends RewritableSink {
  /** How many bytes were appended. */
  readonly sizeBytes: number;
  /** The SHA-256 of written bytes. */
  hashOf(offset: number, bytes: number): Buffer;
}

export class LayerBlobWriter {
  /** Write the blocks to it. */
  readonly layer: CommittedLayerWriter;
  readonly #blob: BlobSink;
  readonly #wrapper: TarWrapperWriter;
  readonly #zfile: ZFileWriter;
  readonly #hashes: HashTreeWriter;

  constructor(
    blob: BlobSink,
    form: ZFileOptions,
    layer: ConstructorParameters<typeof CommittedLayerWriter>[1],
  ) {
    this.#blob = blob;
    this.#wrapper = new TarWrapperWriter(blob);
    this.#zfile = new ZFileWriter(this.#wrapper, form);
    this.#hashes = new HashTreeWriter(this.#zfile);
    this.layer = new CommittedLayerWriter(this.#hashes, layer);
  }

  /** Finishes the layer and its blob. */
  finish(): TreeAddress {
    this.layer.finish();
    this.#zfile.finish();
    this.#wrapper.finish();
    const { index } = this.#zfile;
    const { tree, root } = this.#hashes.finish({
      headHash: this.#blob.hashOf(0, PROVED_HEAD_BYTES),
      indexHash: this.#blob.hashOf(this.#wrapper.headerBytes + index.offset, index.bytes),
    });
    const offset = this.#blob.sizeBytes;
    this.#blob.write(tree);
    return { root, offset };
  }

  /** After finish(): how many bytes of the blob hold the first `bytes` of the layer, all headers included. */
  storedBytesOf(bytes: number): number {
    return this.#wrapper.headerBytes + this.#zfile.storedBytesOf(bytes);
  }
}

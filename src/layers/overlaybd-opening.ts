/** Opens a layer blob of overlaybd in any wrapping: with or without a tar, as a ZFile or plain. */
import { corrupt, unsupported } from '../io/format-error.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import { CommittedLayer } from '../lsmt/committed-layer.js';
import { hasLayerMagic, type LayerHeader } from '../lsmt/layer-header.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { HashTree } from '../zfile/hash-tree.js';
import type { ZFileLayout } from '../zfile/zfile-header.js';
import { HEADER_BYTES } from '../zfile/zfile-header.js';
import { hasZFileMagic } from '../zfile/zfile-magic.js';
import { type ZFileProof, ZFileReader } from '../zfile/zfile-reader.js';
import type { LayerBasis, LayerOpening } from './layer-format.js';
import { unwrapTar } from './tar-wrapper.js';

/** Length of either magic. */
const MAGIC_BYTES = 24;

/** The opening of overlaybd's formats. */
export class OverlaybdOpening implements LayerOpening {
  readonly label: string;
  readonly isChecked: boolean;
  /** The blob without its tar. */
  readonly #payload: RandomAccessFile;
  readonly #target: RandomAccessFile | undefined;
  readonly #decoded: DecodedBlocks;
  readonly #proof: ZFileProof | undefined;
  readonly #above: ((file: RandomAccessFile) => RandomAccessFile) | undefined;
  /** The head of the payload. */
  readonly #head: Buffer;
  /** Undefined for a layer that is not compressed. */
  #layout: ZFileLayout | undefined;
  /** The layer: the payload, or the decompressed payload. */
  #inside: RandomAccessFile;
  #trailer: LayerHeader | undefined;

  /**
   * A damaged tar header looks like no tar, and the bytes behind it then like no layer: only both checks together show
   * the damage.
   *
   * @param target - The uncompressed tar of the original layer, for a TurboOCI layer. Owned as the blob is.
   * @throws {ObdError} as LayerFormat.begin().
   */
  constructor(
    blob: RandomAccessFile,
    { head, lower, decoded, tree, above }: LayerBasis,
    target: RandomAccessFile | undefined,
  ) {
    const { content: payload, start } = unwrapTar(blob, head);
    if (payload.sizeBytes < MAGIC_BYTES) {
      throw corrupt(payload, 0, `${payload.sizeBytes} bytes are too few for a layer`);
    }
    const magic = head.subarray(start);
    this.isChecked = hasZFileMagic(magic);
    if (!this.isChecked && !hasLayerMagic(magic)) {
      throw corrupt(blob, 0, 'neither a ZFile nor a layer, nor a tar around one');
    }
    if (tree !== undefined && !this.isChecked) {
      throw unsupported(blob, 0, 'a hash tree over a layer that is no ZFile');
    }
    this.label = payload.label;
    this.#payload = payload;
    this.#target = target;
    this.#decoded = decoded;
    this.#proof = tree && { tree, payloadAt: start };
    const { digest } = lower;
    if (tree !== undefined && digest) this.#above = above && ((file) => above(digest, file));
    this.#head = magic;
    this.#inside = payload;
  }

  get isProved(): boolean {
    return this.#proof !== undefined;
  }

  get tree(): HashTree | undefined {
    return this.#proof?.tree;
  }

  get tableBytes(): number {
    return this.#layout === undefined ? 0 : ZFileReader.tableBytes(this.#layout, this.#proof);
  }

  get indexBytes(): number {
    return this.#trailer === undefined ? 0 : CommittedLayer.indexBytes(this.#trailer);
  }

  get segmentsMax(): number {
    return this.#trailer?.indexEntries ?? 0;
  }

  /** Reads header and trailer of the ZFile. */
  async loadHeaders(): Promise<void> {
    if (this.#proof !== undefined) this.#layout = this.#provedLayout(this.#proof);
    else if (this.isChecked) this.#layout = await ZFileReader.readLayout(this.#payload);
  }

  /** Not read again, as only the bytes in the head are proved. */
  #provedLayout({ tree: { header } }: ZFileProof): ZFileLayout {
    const layout = ZFileReader.provedLayout(this.#payload, this.#head.subarray(0, HEADER_BYTES));
    if (layout.decompressedBytes === header.leafedBytes) return layout;
    const found = `its hash tree covers ${header.leafedBytes} bytes, and it has ${layout.decompressedBytes}`;
    throw corrupt(this.#payload, 0, found);
  }

  /** Reads the index of the ZFile, and then header and trailer of the layer. */
  async loadTable(): Promise<void> {
    if (this.#layout !== undefined) {
      this.#inside = await ZFileReader.load(
        this.#payload,
        this.#layout,
        this.#decoded,
        this.#proof,
      );
    }
    this.#inside = this.#above?.(this.#inside) ?? this.#inside;
    this.#trailer = await CommittedLayer.readTrailer(this.#inside);
  }

  async loadIndex(): Promise<CommittedLayer> {
    const sources = [this.#inside, ...(this.#target === undefined ? [] : [this.#target])];
    return await CommittedLayer.load(sources, this.#trailer!);
  }

  /** Frees the table of a ZFile now, instead of at garbage collection. */
  close(): void {
    this.#inside.close();
    this.#target?.close();
  }
}

/** Opens a layer blob of overlaybd in any wrapping: with or without a tar, as a ZFile or plain. */
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { CommittedLayer } from '../lsmt/committed-layer.js';
import { hasLayerMagic, type LayerHeader } from '../lsmt/layer-header.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { ZFileLayout } from '../zfile/zfile-header.js';
import { hasZFileMagic } from '../zfile/zfile-magic.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import type { LayerOpening } from './layer-format.js';
import { HEAD_BYTES } from './layer-kind.js';
import { openTarWindow } from './tar-wrapper.js';

/** Length of either magic. */
const MAGIC_BYTES = 24;

/** The blob without its tar. */
interface Payload {
  readonly file: RandomAccessFile;
  /** Undefined for a layer that is not compressed. */
  readonly layout: ZFileLayout | undefined;
}

/**
 * LayerFormat.begin() of overlaybd's formats.
 *
 * @param target - The uncompressed tar of the original layer, for a TurboOCI layer. Owned as the blob is.
 */
export async function beginOverlaybd(
  blob: RandomAccessFile,
  target: RandomAccessFile | undefined,
  decoded: DecodedBlocks,
): Promise<LayerOpening> {
  const { file, compressed } = await unwrap(blob);
  const layout = compressed ? await ZFileReader.readLayout(file) : undefined;
  return new OverlaybdOpening({ file, layout }, target, decoded);
}

class OverlaybdOpening implements LayerOpening {
  readonly label: string;
  readonly #payload: Payload;
  readonly #target: RandomAccessFile | undefined;
  readonly #decoded: DecodedBlocks;
  /** The layer: the payload, or the decompressed payload. */
  #inside: RandomAccessFile;
  #trailer: LayerHeader | undefined;

  constructor(payload: Payload, target: RandomAccessFile | undefined, decoded: DecodedBlocks) {
    this.label = payload.file.label;
    this.#payload = payload;
    this.#target = target;
    this.#decoded = decoded;
    this.#inside = payload.file;
  }

  get isChecked(): boolean {
    return this.#payload.layout !== undefined;
  }

  get tableBytes(): number {
    const { layout } = this.#payload;
    return layout === undefined ? 0 : ZFileReader.tableBytes(layout);
  }

  get indexBytes(): number {
    return this.#trailer === undefined ? 0 : CommittedLayer.indexBytes(this.#trailer);
  }

  get segmentsMax(): number {
    return this.#trailer?.indexEntries ?? 0;
  }

  /** Reads the index of the ZFile, and then header and trailer of the layer. */
  async loadTable(): Promise<void> {
    const { file, layout } = this.#payload;
    if (layout !== undefined) this.#inside = await ZFileReader.load(file, layout, this.#decoded);
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

/**
 * Finds the content of the tar. A damaged tar header looks like no tar, and the bytes behind it then
 * like no layer, so only the whole opening shows the damage, and all of it is refetched.
 */
async function unwrap(
  blob: RandomAccessFile,
): Promise<{ readonly file: RandomAccessFile; readonly compressed: boolean }> {
  return await refetchWhileCorrupt(blob, 0, Math.min(HEAD_BYTES, blob.sizeBytes), async () => {
    const file = await openTarWindow(blob);
    if (file.sizeBytes < MAGIC_BYTES) {
      throw corrupt(file, 0, `${file.sizeBytes} bytes are too few for a layer`);
    }
    const magic = Buffer.alloc(MAGIC_BYTES);
    await readFully(file, magic, 0);
    if (hasZFileMagic(magic)) return { file, compressed: true };
    if (hasLayerMagic(magic)) return { file, compressed: false };
    throw corrupt(blob, 0, 'neither a ZFile nor a layer, nor a tar around one');
  });
}

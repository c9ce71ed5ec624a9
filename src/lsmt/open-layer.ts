/**
 * Opens a layer blob in any wrapping: with or without a tar, as a ZFile or plain.
 *
 * Only this file of the folder depends on ZFile and tar, because the layer format is the same whether
 * compressed or not, and every caller that opens a layer needs both.
 */
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { isZFile } from '../zfile/is-zfile.js';
import { openTarWindow } from '../zfile/tar-wrapper.js';
import type { ZFileLayout } from '../zfile/zfile-header.js';
import { ZFileReader } from '../zfile/zfile-reader.js';
import { CommittedLayer } from './committed-layer.js';
import { hasLayerMagic, type LayerHeader } from './layer-header.js';

/** The tar's headers and the magic inside: this range is refetched if no format matches. */
const OPENING_BYTES = 2048;
const MAGIC_BYTES = 24;

/**
 * @param source - The blob. The layer takes it over; after an error it is closed.
 * @param decoded - The cache that all files of this thread share.
 * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and read errors.
 */
export async function openLayer(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<CommittedLayer> {
  return await openAll(source, decoded, undefined);
}

/**
 * The same for a TurboOCI layer, whose file contents are in `target`: the uncompressed tar of the
 * original layer. After an error the caller still owns it.
 */
export async function openTurboLayer(
  source: RandomAccessFile,
  target: RandomAccessFile,
  decoded: DecodedBlocks,
): Promise<CommittedLayer> {
  return await openAll(source, decoded, target);
}

async function openAll(
  source: RandomAccessFile,
  decoded: DecodedBlocks,
  target: RandomAccessFile | undefined,
): Promise<CommittedLayer> {
  const opening = new LayerOpening(source, decoded, target);
  try {
    await opening.readHead();
    await opening.loadTable();
    return await opening.loadIndex();
  } catch (error) {
    opening.close();
    throw error;
  }
}

/**
 * openLayer() and openTurboLayer() in the three steps that each say what memory the next one takes:
 * readHead(), loadTable(), loadIndex(). All throw what those throw.
 */
export class LayerOpening {
  readonly #source: RandomAccessFile;
  readonly #decoded: DecodedBlocks;
  readonly #target: RandomAccessFile | undefined;
  /** `#source` without the tar. */
  #payload: RandomAccessFile;
  /** Undefined for a layer that is not compressed. */
  #layout: ZFileLayout | undefined;
  /** The layer: #payload, or the decompressed #payload. */
  #inside: RandomAccessFile;
  #trailer: LayerHeader | undefined;

  constructor(
    source: RandomAccessFile,
    decoded: DecodedBlocks,
    target: RandomAccessFile | undefined,
  ) {
    this.#source = source;
    this.#decoded = decoded;
    this.#target = target;
    this.#payload = source;
    this.#inside = source;
  }

  get label(): string {
    return this.#source.label;
  }

  /** Whether it is in a ZFile, which has checksums. After readHead(). */
  get isCompressed(): boolean {
    return this.#layout !== undefined;
  }

  /** Memory that loadTable() allocates. After readHead(). */
  get tableBytes(): number {
    return this.#layout === undefined ? 0 : ZFileReader.tableBytes(this.#layout);
  }

  /** Memory that loadIndex() allocates. After loadTable(). */
  get indexBytes(): number {
    return this.#trailer === undefined ? 0 : CommittedLayer.indexBytes(this.#trailer);
  }

  /** How many segments loadIndex() finds at most. After loadTable(). */
  get segmentsMax(): number {
    return this.#trailer?.indexEntries ?? 0;
  }

  /** Reads the headers of tar and ZFile. */
  async readHead(): Promise<void> {
    const { payload, compressed } = await undress(this.#source);
    this.#payload = payload;
    this.#inside = payload;
    if (compressed) this.#layout = await ZFileReader.readLayout(payload);
  }

  /** Reads the index of the ZFile, and then header and trailer of the layer. */
  async loadTable(): Promise<void> {
    if (this.#layout !== undefined) {
      this.#inside = await ZFileReader.load(this.#payload, this.#layout, this.#decoded);
    }
    this.#trailer = await CommittedLayer.readTrailer(this.#inside);
  }

  /** Reads the index of the layer, which then owns blob and target. */
  async loadIndex(): Promise<CommittedLayer> {
    const sources = [this.#inside, ...(this.#target === undefined ? [] : [this.#target])];
    return await CommittedLayer.load(sources, this.#trailer!);
  }

  /** Closes the blob, and frees the table of a ZFile now. Not the target. */
  close(): void {
    this.#inside.close();
  }
}

/**
 * Finds the content of the tar. A damaged tar header looks like no tar, and the bytes behind it then
 * like no layer, so only the whole opening shows the damage, and all of it is refetched.
 */
async function undress(
  source: RandomAccessFile,
): Promise<{ payload: RandomAccessFile; compressed: boolean }> {
  const openingBytes = Math.min(OPENING_BYTES, source.sizeBytes);
  return await refetchWhileCorrupt(source, 0, openingBytes, async () => {
    const payload = await openTarWindow(source);
    if (await isZFile(payload)) return { payload, compressed: true };
    const opening = Buffer.alloc(MAGIC_BYTES);
    await readFully(payload, opening, 0);
    if (hasLayerMagic(opening)) return { payload, compressed: false };
    throw corrupt(source, 0, 'neither a ZFile nor a layer, nor a tar around one');
  });
}

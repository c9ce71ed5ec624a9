/**
 * Turns OCI layers, one after the other and bottom first, into the overlaybd layers of one image.
 *
 *     tar -> changes to the ext4 of the layers below (apply-layer) -> changed blocks (change-set)
 *         -> LSMT layer -> ZFile -> tar wrapper -> a file in the work directory, and its digest
 *                       -> hash tree, behind the tar
 *
 * The same layers give the same bytes: no clock, no random numbers, no host name. The file system's UUID
 * comes from the first layer's chain ID and each layer's from its own (first 32 hex digits, as overlaybd's
 * convertor does), so images that share layers share blobs.
 *
 * Memory does not depend on the size of a layer: pieces of its stream, a bit per 4 KiB of disk, the file
 * system's caches, 16 bytes per changed run, 32 bytes per 4 KiB of layer. Disk: the layers written, and what the largest one changes.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Ext4FileSystem } from '../ext4/ext4-file-system.js';
import type { Extent } from '../ext4/extent-tree.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { LocalFile } from '../io/local-file.js';
import type { LayerFormat } from '../layers/layer-format.js';
import { openLayer } from '../layers/open-layer.js';
import type { Layer } from '../lsmt/layer.js';
import { LayerStack } from '../lsmt/layer-stack.js';
import { NULL_UUID } from '../lsmt/layer-uuid.js';
import { TarReader } from '../tar/tar-reader.js';
import type { Algorithm } from '../zfile/block-codec.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { TreeAddress } from '../zfile/hash-tree.js';
import { applyLayer } from './apply-layer.js';
import { ChangeSet } from './change-set.js';
import { ContentOrder } from './content-order.js';
import { HashingFile } from './hashing-file.js';
import { LayerBlobWriter } from './layer-blob-writer.js';
import type { WorkDirectory } from './work-directory.js';

/** Metadata blocks of the layers below, decoded: directories and inode tables are read again and again. */
const DECODED_BYTES = 32 << 20;
/** Runs of at most 256 KiB between two turns of the event loop: signals and sockets are served. */
const RUNS_PER_TURN = 32;

/** How layers are written. */
export interface OutputFormat {
  readonly algorithm: Algorithm;
  /** Bytes per ZFile block. */
  readonly blockBytes: number;
  /** Bytes of the virtual disk. */
  readonly virtualBytes: number;
}

export interface ConvertedLayer {
  readonly path: string;
  readonly digest: string;
  readonly sizeBytes: number;
  /** How many bytes of the blob, from its start, hold the file system's metadata. */
  readonly metadataBytes: number;
  readonly hashTree: TreeAddress;
}

export class LayerConverter {
  readonly #work: WorkDirectory;
  readonly #format: OutputFormat;
  readonly #formats: readonly LayerFormat[];
  readonly #warn: (message: string) => void;
  readonly #signal: AbortSignal;
  readonly #decoded = new DecodedBlocks(DECODED_BYTES);
  readonly #below: Layer[] = [];
  #parentUuid = NULL_UUID;

  /** @param formats - The kinds of layer; one of them is the kind that is written here. */
  constructor(
    work: WorkDirectory,
    format: OutputFormat,
    formats: readonly LayerFormat[],
    warn: (message: string) => void,
    signal: AbortSignal,
  ) {
    this.#work = work;
    this.#format = format;
    this.#formats = formats;
    this.#warn = warn;
    this.#signal = signal;
  }

  /**
   * Converts the next layer.
   *
   * @param tar - The uncompressed layer. It is read to its end.
   * @param label - What to call the layer in a message.
   * @param chainId - `sha256:...` of this layer and those below, over their diff IDs.
   * @throws {ObdError} what applying the layer throws, `NoSpace` and `Io` of the work directory. The
   *   converter can then only be closed.
   */
  async convert(
    tar: AsyncIterable<Uint8Array>,
    label: string,
    chainId: string,
  ): Promise<ConvertedLayer> {
    const number = this.#below.length;
    const below = number === 0 ? undefined : new LayerStack(this.#below);
    const { virtualBytes } = this.#format;
    const order = new ContentOrder();
    const changes = new ChangeSet(this.#work.file(`${number}.changes`), virtualBytes, below);
    try {
      const fs =
        number === 0
          ? Ext4FileSystem.format(changes, { uuid: uuidBytes(chainId) })
          : Ext4FileSystem.open(changes);
      const reader = new TarReader(tar, label);
      try {
        const onContent = (directory: number, extents: readonly Extent[]) =>
          order.add(directory, extents);
        await applyLayer(fs, reader, { label, warn: this.#warn, signal: this.#signal, onContent });
      } finally {
        await reader.close();
      }
      fs.flush();
      const path = this.#work.file(`${number}.layer`);
      return await this.#commit(changes, order, path, uuidText(chainId));
    } finally {
      changes.close();
    }
  }

  /** Closes the layers; their files go with the work directory. */
  close(): void {
    for (const layer of this.#below) layer.close();
  }

  async #commit(
    changes: ChangeSet,
    order: ContentOrder,
    path: string,
    uuid: string,
  ): Promise<ConvertedLayer> {
    const blob = new HashingFile(path);
    let metadataBytes: number;
    let hashTree: TreeAddress;
    try {
      const { algorithm, blockBytes, virtualBytes } = this.#format;
      const parentUuid = this.#parentUuid;
      const header = { virtualBytes, uuid, parentUuid };
      const writer = new LayerBlobWriter(blob, { algorithm, blockBytes }, header);
      const { layer } = writer;
      await this.#inTurns(changes.commitTo(layer, order.metadata(virtualBytes / EXT4_BLOCK_BYTES)));
      const metadataEnd = layer.writtenBytes;
      await this.#inTurns(changes.commitTo(layer, order.contents()));
      hashTree = writer.finish();
      metadataBytes = writer.storedBytesOf(metadataEnd);
    } finally {
      blob.close();
    }
    const dependencies = { formats: this.#formats, decoded: this.#decoded };
    this.#below.push(await openLayer(LocalFile.openWaiting(path), dependencies));
    this.#parentUuid = uuid;
    const digest = await blob.digest();
    return { path, digest, sizeBytes: blob.sizeBytes, metadataBytes, hashTree };
  }

  /** Runs `steps` to their end, with turns of the event loop between them. */
  async #inTurns(steps: Iterable<void>): Promise<void> {
    let runs = 0;
    for (const _ of steps) {
      if (++runs % RUNS_PER_TURN === 0) await nextTurn();
      this.#signal.throwIfAborted();
    }
  }
}

function uuidText(chainId: string): string {
  const hex = chainId.slice('sha256:'.length);
  const groups = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)];
  return [...groups, hex.slice(20, 32)].join('-');
}

function uuidBytes(chainId: string): Uint8Array {
  return Buffer.from(chainId.slice('sha256:'.length).slice(0, 32), 'hex');
}

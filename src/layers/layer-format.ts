/**
 * A kind of layer that can be opened: one row of the table in layer-formats.ts.
 *
 * A layer opens in steps, each of which says what memory the next one takes, so that the caller can charge a step for
 * all layers of an image before it begins.
 */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Layer } from '../lsmt/layer.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { HashTree } from '../zfile/hash-tree.js';
import type { LayerKind } from './layer-kind.js';
import type { LowerLayer } from './lower-layer.js';

export interface LayerFormat extends LayerKind {
  /**
   * Begins to open a blob of this kind. Undefined for a kind that holds no blocks.
   *
   * @param blob - The opening, and later the layer, owns it. After an error the caller still does.
   * @throws {ObdError} `Corrupt` naming file, offset and rule: the head is fetched again if there is a better copy;
   *   `Unsupported`; `NotFound` and `Io` for another file that the layer needs.
   */
  readonly begin: ((blob: RandomAccessFile, about: LayerBasis) => LayerOpening) | undefined;
}

/** The facts about a layer that are known before its headers are read. */
export interface LayerBasis {
  /** The first HEAD_BYTES of the blob, or all of a smaller one. */
  readonly head: Buffer;
  /** The layer in the image config, with the further files that it needs. */
  readonly lower: LowerLayer;
  /** The cache that all files of this thread share. */
  readonly decoded: DecodedBlocks;
  /** Proves the layer, and has proved the head. Undefined for a layer without hash tree. */
  readonly tree: HashTree | undefined;
  /** As LayerDependencies.above. */
  readonly above?: ((digest: string, file: RandomAccessFile) => RandomAccessFile) | undefined;
}

/** A recognised layer. All methods throw as begin() does, and read errors. */
export interface LayerOpening {
  readonly label: string;
  /** Whether the bytes of the blob have checksums. */
  readonly isChecked: boolean;
  /** Whether every read of the layer is proved by its hash tree. */
  readonly isProved: boolean;
  /** The hash tree that proves them. */
  readonly tree?: HashTree | undefined;
  /** Memory that loadTable() allocates, in bytes. After loadHeaders(). */
  readonly tableBytes: number;
  /** Memory that loadIndex() allocates, in bytes. After loadTable(). */
  readonly indexBytes: number;
  /** How many segments loadIndex() finds at most. After loadTable(). */
  readonly segmentsMax: number;
  /** Reads the headers that the head does not hold. */
  loadHeaders(): Promise<void>;
  /** Reads what is needed to decode the blob. */
  loadTable(): Promise<void>;
  /** Reads the index of the layer, which then owns all files. */
  loadIndex(): Promise<Layer>;
  /** Closes all files. Idempotent; not needed once there is a layer, which it would close. */
  close(): void;
}

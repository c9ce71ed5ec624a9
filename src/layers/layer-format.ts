/**
 * A kind of layer that can be opened: one row of the table in layer-formats.ts.
 *
 * A layer opens in steps, each of which says what memory the next one takes, so that the caller can charge a step for
 * all layers of an image before it begins.
 */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Layer } from '../lsmt/layer.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import type { LayerKind } from './layer-kind.js';
import type { LowerLayer } from './lower-layer.js';

export interface LayerFormat extends LayerKind {
  /**
   * Reads the headers of a blob of this kind. Undefined for a kind that holds no blocks.
   *
   * @param blob - The opening, and later the layer, owns it. After an error the caller still does.
   * @param lower - What the image config says of it, such as further files that it needs.
   * @param decoded - The cache that all files of this thread share.
   * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and read errors.
   */
  readonly begin:
    | ((blob: RandomAccessFile, lower: LowerLayer, decoded: DecodedBlocks) => Promise<LayerOpening>)
    | undefined;
}

/** A layer whose headers have been read. All methods throw as begin() does. */
export interface LayerOpening {
  readonly label: string;
  /** Whether the bytes of the blob have checksums. */
  readonly isChecked: boolean;
  /** Memory that loadTable() allocates, in bytes. */
  readonly tableBytes: number;
  /** Memory that loadIndex() allocates, in bytes. After loadTable(). */
  readonly indexBytes: number;
  /** How many segments loadIndex() finds at most. After loadTable(). */
  readonly segmentsMax: number;
  /** Reads what is needed to decode the blob. */
  loadTable(): Promise<void>;
  /** Reads the index of the layer, which then owns all files. */
  loadIndex(): Promise<Layer>;
  /** Closes all files. Idempotent; not needed once there is a layer, which it would close. */
  close(): void;
}

/**
 * The disk that a stack of layers adds up to: every sector from the topmost layer that has it, and
 * zeroes where none does.
 *
 * All layers are folded into one sorted list when the stack is made, so a read does not depend on
 * how many there are. Segments that read as zeroes, or lie past the end of the disk, are left
 * out: a gap reads as zeroes. The disk's size is that of the topmost layer that states one.
 *
 * Cost of a read: one look-up, and for each segment it touches one read of that layer's source, plus
 * one view of the target where the read touches more than one segment.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { SECTOR_BYTES } from '../io/block-sizes.js';
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { Layer } from './layer.js';
import { overlayAll } from './overlay.js';
import { SegmentLookup } from './segment-lookup.js';
import { SEGMENT_BYTES, SEGMENTS_MAX, type Segments, SegmentsBuilder, ZEROES } from './segments.js';

/** As in overlaybd, whose merged index has 8 bits for the layer. */
export const LAYERS_MAX = 255;

/**
 * Memory that making a stack takes for each segment of its layers, at most: a merge can double their number, and has two
 * lists of the result and a copy of one; see overlay.ts.
 */
const MERGE_BYTES = 2 * 3 * SEGMENT_BYTES;

/** A range of one source, in bytes. */
export interface SourceRange {
  readonly source: RandomAccessFile;
  readonly start: number;
  readonly end: number;
}

interface Piece extends SourceRange {
  start: number;
  end: number;
}

export class LayerStack implements RandomAccessFile {
  readonly label: string;
  readonly sizeBytes: number;
  readonly #sources: readonly RandomAccessFile[];
  readonly #segments: Segments;
  readonly #lookup: SegmentLookup;

  /**
   * @param layers - Bottom first. The stack owns them: close() closes them. It keeps their
   *   sources and not their indexes.
   * @throws {ObdError} `InvalidArgument` for no layers, `Unsupported` for more than
   *   {@link LAYERS_MAX} or too many segments, `FailedPrecondition` for a layer that can only be the
   *   bottom and is not. The caller then still owns the layers.
   */
  constructor(layers: readonly Layer[]) {
    if (layers.length === 0) {
      throw new ObdError(ErrorCodes.InvalidArgument, 'Cannot open a disk of no layers');
    }
    if (layers.length > LAYERS_MAX) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot open a disk of ${layers.length} layers: the limit is ${LAYERS_MAX}`,
      );
    }
    const misplaced = layers.find((layer, i) => layer.bottomOnly && i > 0);
    if (misplaced !== undefined) {
      throw new ObdError(
        ErrorCodes.FailedPrecondition,
        `Cannot stack ${misplaced.label}: a sparse layer that is not sealed can only be the bottom`,
        { path: misplaced.label },
      );
    }
    const top = layers.findLast((layer) => layer.virtualBytes > 0);
    this.label = layers[layers.length - 1]!.label;
    this.sizeBytes = top?.virtualBytes ?? 0;
    this.#sources = layers.flatMap((layer) => layer.sources);
    this.#segments = visible(overlayAll(numbered(layers)), this.sizeBytes / SECTOR_BYTES);
    this.#lookup = new SegmentLookup(this.#segments);
  }

  /** Peak memory of making a stack of these layers. The stack then keeps {@link indexBytes}. */
  static mergeBytes(segments: number): number {
    return Math.min(segments * MERGE_BYTES, 3 * SEGMENTS_MAX * SEGMENT_BYTES);
  }

  /** Memory of the index. */
  get indexBytes(): number {
    return this.#segments.count * SEGMENT_BYTES + this.#lookup.memoryBytes;
  }

  tryRead(target: Uint8Array, offset: number): boolean {
    const end = offset + target.length;
    this.#checkRange(offset, end);
    const { count, starts, ends, moffsets, sources } = this.#segments;
    let at = offset;
    let i = this.#lookup.find(Math.floor(offset / SECTOR_BYTES));
    while (at < end) {
      const start = i === count ? end : starts[i]! * SECTOR_BYTES;
      if (at < start) {
        const gapEnd = Math.min(start, end);
        target.fill(0, at - offset, gapEnd - offset);
        at = gapEnd;
        continue;
      }
      const to = Math.min(ends[i]! * SECTOR_BYTES, end);
      const part = to - at === target.length ? target : target.subarray(at - offset, to - offset);
      const from = moffsets[i]! * SECTOR_BYTES + at - start;
      if (!this.#sources[sources[i]!]!.tryRead(part, from)) return false;
      at = to;
      i++;
    }
    return true;
  }

  /** Where the data continue in a source, though not on the disk, one call loads both. */
  async load(offset: number, length: number, deadlineMs?: number): Promise<void> {
    await Promise.all(
      this.#pieces(offset, length).map(({ source, start, end }) =>
        source.load(start, end - start, deadlineMs),
      ),
    );
  }

  invalidate(offset: number, length: number): boolean {
    let dropped = false;
    for (const { source, start, end } of this.#pieces(offset, length)) {
      if (source.invalidate(start, end - start)) dropped = true;
    }
    return dropped;
  }

  /** The ranges of the layers' files that [offset, offset + length) is read from; none for zeroes. */
  sourceRanges(offset: number, length: number): readonly SourceRange[] {
    return this.#pieces(offset, length);
  }

  /**
   * Calls `visit` for each part of the disk that comes from one of these files of layers, in the order of the disk, until it returns
   * false. In bytes.
   *
   * @param visit - `i` is the number of the file among `files`.
   */
  eachPartOf(
    files: readonly RandomAccessFile[],
    visit: (i: number, offset: number, fileOffset: number, length: number) => boolean,
  ): void {
    const { count, starts, ends, moffsets, sources } = this.#segments;
    const numbers = this.#sources.map((source) => files.indexOf(source));
    for (let i = 0; i < count; i++) {
      const file = sources[i] === ZEROES ? -1 : numbers[sources[i]!]!;
      if (file === -1) continue;
      const [start, length] = [starts[i]! * SECTOR_BYTES, (ends[i]! - starts[i]!) * SECTOR_BYTES];
      if (!visit(file, start, moffsets[i]! * SECTOR_BYTES, length)) return;
    }
  }

  /** As VirtualDisk.extentAt: bytes alike from `offset`, positive for data, negative for zeroes. */
  extentAt(offset: number, length: number): number {
    const end = offset + length;
    this.#checkRange(offset, end);
    const { count, starts, ends } = this.#segments;
    let i = this.#lookup.find(Math.floor(offset / SECTOR_BYTES));
    const start = i === count ? end : starts[i]! * SECTOR_BYTES;
    if (start > offset) return offset - Math.min(start, end);
    let dataEnd = ends[i]!;
    while (dataEnd * SECTOR_BYTES < end && ++i < count && starts[i] === dataEnd) dataEnd = ends[i]!;
    return Math.min(dataEnd * SECTOR_BYTES, end) - offset;
  }

  close(): void {
    for (const source of this.#sources) source.close();
  }

  #checkRange(start: number, end: number): void {
    if (!(start >= 0 && start <= end && end <= this.sizeBytes)) {
      throw new RangeError(`[${start}, ${end}) is outside the disk of ${this.sizeBytes} bytes`);
    }
  }

  /** The ranges of the sources that [offset, offset + length) is made from, joined where they touch. */
  #pieces(offset: number, length: number): Piece[] {
    const end = offset + length;
    this.#checkRange(offset, end);
    const { count, starts, ends, moffsets, sources } = this.#segments;
    const pieces: Piece[] = [];
    const lastOf = new Map<number, Piece>();
    let i = this.#lookup.find(Math.floor(offset / SECTOR_BYTES));
    for (; i < count && starts[i]! * SECTOR_BYTES < end; i++) {
      const start = starts[i]! * SECTOR_BYTES;
      const number = sources[i]!;
      const origin = moffsets[i]! * SECTOR_BYTES - start;
      const from = origin + Math.max(start, offset);
      const to = origin + Math.min(ends[i]! * SECTOR_BYTES, end);
      const last = lastOf.get(number);
      if (last?.end === from) {
        last.end = to;
      } else {
        const piece = { source: this.#sources[number]!, start: from, end: to };
        pieces.push(piece);
        lastOf.set(number, piece);
      }
    }
    return pieces;
  }
}

/** The layers' segments with their sources numbered through the whole stack. */
function numbered(layers: readonly Layer[]): Segments[] {
  let base = 0;
  return layers.map(({ segments, sources }) => {
    const first = base;
    base += sources.length;
    if (first === 0) return segments;
    const shifted = segments.sources.map((n) => (n === ZEROES ? ZEROES : n + first));
    return { ...segments, sources: shifted };
  });
}

/** The segments of `all` that differ from a gap: those with data, inside the disk. */
function visible(all: Segments, sectors: number): Segments {
  const kept = new SegmentsBuilder(all.count);
  for (let i = 0; i < all.count && all.starts[i]! < sectors; i++) {
    if (all.sources[i] === ZEROES) continue;
    const end = Math.min(all.ends[i]!, sectors);
    kept.add(all.starts[i]!, end, all.moffsets[i]!, all.sources[i]!);
  }
  return kept.finish();
}

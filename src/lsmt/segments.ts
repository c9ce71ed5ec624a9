/**
 * A sorted list of segments, which map runs of a disk's sectors to their sources. All layer formats
 * load into it, and layers are merged in this form.
 *
 * Invariants, kept by SegmentsBuilder.add(), the only way to make one:
 *
 *   1. starts[i] < ends[i] <= starts[i + 1].
 *   2. Neighbours that could be one segment are one.
 *   3. Everything is a safe integer. Unit: sectors of 512 bytes.
 *
 * Columns are typed arrays: 26 bytes a segment, outside the heap, where an object would take 100
 * and be visited by every major collection.
 */
import { ErrorCodes, ObdError } from '../errors.js';

/** The source of a segment that reads as zeroes and hides what is below it. */
export const ZEROES = 0xffff;

/**
 * Segments of one merged disk: 2^22 take 110 MiB of memory, as much as one disk may cost a daemon,
 * and are forty times what the largest image measured needs.
 */
export const SEGMENTS_MAX = 1 << 22;

/** Memory of one, in all columns. */
export const SEGMENT_BYTES = 26;

export interface Segments {
  readonly count: number;
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  /** The sector of the source that the first sector comes from; meaningless for ZEROES. */
  readonly moffsets: Float64Array;
  /** Number of the file, among those of a layer or of a stack, that has the data; or ZEROES. */
  readonly sources: Uint16Array;
}

export class SegmentsBuilder {
  #count = 0;
  #starts: Float64Array;
  #ends: Float64Array;
  #moffsets: Float64Array;
  #sources: Uint16Array;

  /** @param expected - A guess that saves copying. It must not be unchecked input. */
  constructor(expected = 0) {
    const capacity = Math.min(expected, SEGMENTS_MAX);
    this.#starts = new Float64Array(capacity);
    this.#ends = new Float64Array(capacity);
    this.#moffsets = new Float64Array(capacity);
    this.#sources = new Uint16Array(capacity);
  }

  /** The end of the last segment, or 0: the lowest start the next may have. */
  get end(): number {
    return this.#count === 0 ? 0 : this.#ends[this.#count - 1]!;
  }

  /** @throws {ObdError} `Unsupported` past {@link SEGMENTS_MAX}. */
  add(start: number, end: number, moffset: number, source: number): void {
    const last = this.#count - 1;
    if (last >= 0 && this.#ends[last] === start && this.#sources[last] === source) {
      const follows = this.#moffsets[last]! + this.#ends[last]! - this.#starts[last]! === moffset;
      if (follows || source === ZEROES) {
        this.#ends[last] = end;
        return;
      }
    }
    if (this.#count === this.#starts.length) this.#grow();
    this.#starts[this.#count] = start;
    this.#ends[this.#count] = end;
    this.#moffsets[this.#count] = moffset;
    this.#sources[this.#count] = source;
    this.#count++;
  }

  finish(): Segments {
    const count = this.#count;
    return {
      count,
      starts: this.#starts.slice(0, count),
      ends: this.#ends.slice(0, count),
      moffsets: this.#moffsets.slice(0, count),
      sources: this.#sources.slice(0, count),
    };
  }

  #grow(): void {
    if (this.#count >= SEGMENTS_MAX) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot index a disk of more than ${SEGMENTS_MAX} segments: merge its layers`,
      );
    }
    const capacity = Math.min(Math.max(16, this.#count * 2), SEGMENTS_MAX);
    const grown = <T extends Float64Array | Uint16Array>(to: T, from: T): T => {
      to.set(from);
      return to;
    };
    this.#starts = grown(new Float64Array(capacity), this.#starts);
    this.#ends = grown(new Float64Array(capacity), this.#ends);
    this.#moffsets = grown(new Float64Array(capacity), this.#moffsets);
    this.#sources = grown(new Uint16Array(capacity), this.#sources);
  }
}

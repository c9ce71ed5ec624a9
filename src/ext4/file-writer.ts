/**
 * Writes the content of one file, front to back, in large runs.
 *
 * Whole blocks of a chunk are written without a copy; only a partial block waits in the buffer. Blocks are allocated
 * run by run as the content comes, since a stream does not say how long it is. Holes have no blocks: only the parts of
 * a block next to a hole are stored as zeroes.
 */
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import type { BlockAllocator } from './block-allocator.js';
import { beyond } from './ext4-error.js';
import { appendExtent, EXTENT_BLOCKS_MAX, type Extent } from './extent-tree.js';

/** Logical block numbers have 32 bits, and the last one is not used. */
const FILE_BYTES_MAX = (2 ** 32 - 1) * EXT4_BLOCK_BYTES;

export class FileWriter {
  readonly #device: BlockDevice;
  readonly #allocator: BlockAllocator;
  readonly #done: (extents: readonly Extent[], sizeBytes: number) => void;
  readonly #extents: Extent[] = [];
  /** The block that is not full yet. */
  readonly #buffer: Buffer;
  #filled = 0;
  /** The buffer holds more than the zeroes of a hole. */
  #hasContent = false;
  /** Blocks of the file before the buffer. */
  #block = 0;

  /**
   * @param buffer - One block, for this writer alone until end().
   * @param done - Puts the result into the inode.
   */
  constructor(
    device: BlockDevice,
    allocator: BlockAllocator,
    buffer: Buffer,
    done: (extents: readonly Extent[], sizeBytes: number) => void,
  ) {
    this.#device = device;
    this.#allocator = allocator;
    this.#buffer = buffer;
    this.#done = done;
  }

  /** @throws {ObdError} `NoSpace`, `Unsupported`; the file system must then be thrown away. */
  write(chunk: Uint8Array): void {
    this.#checkRoom(chunk.length);
    let at = 0;
    if (this.#filled > 0) {
      at = Math.min(chunk.length, EXT4_BLOCK_BYTES - this.#filled);
      this.#buffer.set(chunk.subarray(0, at), this.#filled);
      this.#filled += at;
      this.#hasContent ||= at > 0;
      this.#emitFull();
    }
    const whole = Math.floor((chunk.length - at) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
    if (whole > 0) this.#emit(chunk.subarray(at, at + whole));
    at += whole;
    if (at === chunk.length) return;
    this.#buffer.set(chunk.subarray(at), 0);
    this.#filled = chunk.length - at;
    this.#hasContent = true;
  }

  /** Zeroes that need not be stored. */
  hole(lengthBytes: number): void {
    this.#checkRoom(lengthBytes);
    let left = lengthBytes;
    if (this.#filled > 0) {
      const zeroes = Math.min(left, EXT4_BLOCK_BYTES - this.#filled);
      this.#buffer.fill(0, this.#filled, this.#filled + zeroes);
      this.#filled += zeroes;
      left -= zeroes;
      this.#emitFull();
    }
    const blocks = Math.floor(left / EXT4_BLOCK_BYTES);
    this.#block += blocks;
    left -= blocks * EXT4_BLOCK_BYTES;
    if (left === 0) return;
    this.#buffer.fill(0, 0, left);
    this.#filled = left;
  }

  /** @returns Where the content is. */
  end(): readonly Extent[] {
    const sizeBytes = this.#block * EXT4_BLOCK_BYTES + this.#filled;
    if (this.#hasContent) {
      this.#buffer.fill(0, this.#filled);
      this.#emit(this.#buffer);
    }
    this.#done(this.#extents, sizeBytes);
    return this.#extents;
  }

  #emitFull(): void {
    if (this.#filled < EXT4_BLOCK_BYTES) return;
    if (this.#hasContent) this.#emit(this.#buffer);
    else this.#block++;
    this.#filled = 0;
    this.#hasContent = false;
  }

  /** Stores whole blocks. */
  #emit(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const wanted = (bytes.length - at) / EXT4_BLOCK_BYTES;
      const run = this.#allocator.takeRun(Math.min(wanted, EXTENT_BLOCKS_MAX));
      const length = run.count * EXT4_BLOCK_BYTES;
      this.#device.write(bytes.subarray(at, at + length), run.start * EXT4_BLOCK_BYTES);
      appendExtent(this.#extents, this.#block, run.start, run.count);
      this.#block += run.count;
      at += length;
    }
  }

  #checkRoom(lengthBytes: number): void {
    if (this.#block * EXT4_BLOCK_BYTES + this.#filled + lengthBytes <= FILE_BYTES_MAX) return;
    throw beyond('a file', `it has more than ${FILE_BYTES_MAX} bytes`);
  }
}

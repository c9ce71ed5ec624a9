/**
 * The changes of one layer to the disk: a writable block device over the layers below it.
 *
 * Block v of the disk, once written, lives at v * 4096 of a sparse file in the work directory, and its bit is set; all
 * other blocks are read from below. So memory is one bit per block (2 MiB for 64 GiB) for layers of any size, and the
 * disk space is the size of the layer's writes.
 *
 * commitTo() stores in the layer, in the order that its caller asks for, per block of 4096 bytes:
 *
 *   written, and the same as below ........ nothing      (zeroes over a hole are the same)
 *   written, all zeroes, data below ....... a zeroed segment
 *   written otherwise ..................... data
 *   never written, or discarded ........... nothing: lower data may show through, and no file contains it
 */
import { closeSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { clearRun, nextClear, nextSet } from '../ext4/bitmap.js';
import type { BlockRun } from '../ext4/block-allocator.js';
import type { BlockDevice } from '../io/block-device.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';
import { guarded } from './work-directory.js';

/** Blocks that are compared with the layers below at a time. */
const RUN_BLOCKS = 64;
const ZEROES = Buffer.alloc(EXT4_BLOCK_BYTES);

/** The stacked disk of the layers below; all of it on this machine. A LayerStack is one. */
export interface DiskBelow {
  readonly sizeBytes: number;
  tryRead(target: Uint8Array, offset: number): boolean;
  /** Bytes alike from `offset`: positive for data, negative for zeroes. */
  extentAt(offset: number, length: number): number;
}

/** Takes the changes. A CommittedLayerWriter is one. */
export interface SegmentSink {
  write(offset: number, bytes: Uint8Array): void;
  writeZeroes(offset: number, length: number): void;
}

export class ChangeSet implements BlockDevice {
  readonly sizeBytes: number;
  readonly #path: string;
  readonly #below: DiskBelow | undefined;
  readonly #written: Uint8Array;
  #fd: number | undefined;

  /**
   * @param path - The sparse file; it is created, and unlinked at once, so that it ends with the process.
   * @param sizeBytes - Of the disk; at least that of the one below.
   * @throws {ObdError} `Io`, `NoSpace`.
   */
  constructor(path: string, sizeBytes: number, below: DiskBelow | undefined) {
    if (sizeBytes % EXT4_BLOCK_BYTES !== 0) throw new RangeError(`a disk of ${sizeBytes} bytes`);
    this.sizeBytes = sizeBytes;
    this.#path = path;
    this.#below = below;
    this.#written = new Uint8Array(Math.ceil(sizeBytes / EXT4_BLOCK_BYTES / 8));
    this.#fd = guarded(path, () => {
      const fd = openSync(path, 'wx+', 0o600);
      unlinkSync(path);
      return fd;
    });
  }

  read(target: Uint8Array, offset: number): void {
    const end = this.#checkedEnd(offset, target.length);
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / EXT4_BLOCK_BYTES);
      const written = this.#isWritten(block);
      let next = block + 1;
      while (next * EXT4_BLOCK_BYTES < end && this.#isWritten(next) === written) next++;
      const to = Math.min(next * EXT4_BLOCK_BYTES, end);
      const part = target.subarray(at - offset, to - offset);
      if (written) this.#readOwn(part, at);
      else this.#readBelow(part, at);
      at = to;
    }
  }

  write(source: Uint8Array, offset: number): void {
    const end = this.#checkedEnd(offset, source.length);
    if (source.length === 0) return;
    const first = Math.floor(offset / EXT4_BLOCK_BYTES);
    const last = Math.floor((end - 1) / EXT4_BLOCK_BYTES);
    if (offset % EXT4_BLOCK_BYTES !== 0) this.#bringUp(first);
    if (end % EXT4_BLOCK_BYTES !== 0) this.#bringUp(last);
    this.#writeOwn(source, offset);
    for (let block = first; block <= last; block++) {
      this.#written[block >>> 3] = (this.#written[block >>> 3] as number) | (1 << (block & 7));
    }
  }

  /** Discards whole blocks. Their content is unspecified until they are written again. */
  discard(offset: number, length: number): void {
    const end = this.#checkedEnd(offset, length);
    const first = Math.ceil(offset / EXT4_BLOCK_BYTES);
    for (let block = first; (block + 1) * EXT4_BLOCK_BYTES <= end; block++) {
      // Bytes of eight clear blocks at a time: file systems discard gigabytes when they are made.
      if ((block & 7) === 0 && this.#written[block >>> 3] === 0) {
        block += 7;
        continue;
      }
      this.#written[block >>> 3] = (this.#written[block >>> 3] as number) & ~(1 << (block & 7));
    }
  }

  /**
   * Passes the changes of `runs` to `sink`, run by run, and each block once: a block that was passed counts as not written.
   * Yields now and then, so that the event loop can run.
   */
  *commitTo(sink: SegmentSink, runs: Iterable<BlockRun>): Generator<void> {
    const own = Buffer.alloc(RUN_BLOCKS * EXT4_BLOCK_BYTES);
    const below = Buffer.alloc(RUN_BLOCKS * EXT4_BLOCK_BYTES);
    for (const { start, count } of runs) {
      const end = Math.min(start + count, this.sizeBytes / EXT4_BLOCK_BYTES);
      for (let block = nextSet(this.#written, start, end); block < end; ) {
        const next = nextClear(this.#written, block, Math.min(end, block + RUN_BLOCKS));
        const length = (next - block) * EXT4_BLOCK_BYTES;
        this.#readOwn(own.subarray(0, length), block * EXT4_BLOCK_BYTES);
        this.#readBelow(below.subarray(0, length), block * EXT4_BLOCK_BYTES);
        emitChanges(sink, block * EXT4_BLOCK_BYTES, own.subarray(0, length), below);
        clearRun(this.#written, block, next);
        block = nextSet(this.#written, next, end);
        yield;
      }
    }
  }

  /** Frees the disk space. Idempotent. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #isWritten(block: number): boolean {
    return ((this.#written[block >>> 3] as number) & (1 << (block & 7))) !== 0;
  }

  /** Before part of a block is written, the rest of the block gets its current content. */
  #bringUp(block: number): void {
    if (this.#isWritten(block)) return;
    const whole = Buffer.alloc(EXT4_BLOCK_BYTES);
    this.#readBelow(whole, block * EXT4_BLOCK_BYTES);
    this.#writeOwn(whole, block * EXT4_BLOCK_BYTES);
  }

  #readBelow(target: Uint8Array, offset: number): void {
    const below = this.#below;
    const length = Math.max(0, Math.min(target.length, (below?.sizeBytes ?? 0) - offset));
    const covered = target.subarray(0, length);
    target.fill(0, length);
    if (below === undefined || length === 0) return;
    if (below.extentAt(offset, length) === -length) covered.fill(0);
    else if (!below.tryRead(covered, offset)) {
      throw new TypeError('a layer below a change set is not all on this machine');
    }
  }

  #readOwn(target: Uint8Array, offset: number): void {
    guarded(this.#path, () => {
      for (let done = 0; done < target.length; ) {
        const got = readSync(this.#open, target, done, target.length - done, offset + done);
        if (got === 0) throw new RangeError(`nothing was written at ${offset + done}`);
        done += got;
      }
    });
  }

  #writeOwn(source: Uint8Array, offset: number): void {
    guarded(this.#path, () => {
      for (let done = 0; done < source.length; ) {
        done += writeSync(this.#open, source, done, source.length - done, offset + done);
      }
    });
  }

  get #open(): number {
    if (this.#fd === undefined) throw new TypeError('the change set is closed');
    return this.#fd;
  }

  #checkedEnd(offset: number, length: number): number {
    const end = offset + length;
    if (offset >= 0 && length >= 0 && end <= this.sizeBytes) return end;
    throw new RangeError(`[${offset}, ${end}) is outside the disk of ${this.sizeBytes} bytes`);
  }
}

/** Splits one run of written blocks by the kind of segment that each needs, joining equal neighbours. */
function emitChanges(sink: SegmentSink, offset: number, own: Buffer, below: Buffer): void {
  let start = 0;
  let kind = kindOf(own, below, 0);
  for (let at = EXT4_BLOCK_BYTES; at <= own.length; at += EXT4_BLOCK_BYTES) {
    const here = at < own.length ? kindOf(own, below, at) : undefined;
    if (here === kind) continue;
    if (kind === 'data') sink.write(offset + start, own.subarray(start, at));
    if (kind === 'zeroes') sink.writeZeroes(offset + start, at - start);
    start = at;
    kind = here ?? 'same';
  }
}

function kindOf(own: Buffer, below: Buffer, at: number): 'data' | 'zeroes' | 'same' {
  const end = at + EXT4_BLOCK_BYTES;
  if (own.compare(below, at, end, at, end) === 0) return 'same';
  return own.compare(ZEROES, 0, EXT4_BLOCK_BYTES, at, end) === 0 ? 'zeroes' : 'data';
}

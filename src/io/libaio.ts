/**
 * Reads that do not wait, by native/node-libaio: readNow() has what the page cache has, and an AioQueue reads
 * past it, on the disk's own time. Failures are -errno and not exceptions: on this path EAGAIN is an everyday answer.
 */
import { constants } from 'node:os';
import { loadNativeAddon } from './native-addon.js';

/** Many reads in one call, as columns: lengths[i] bytes of fds[i] from offsets[i] on, to positions[i] of one buffer. */
export interface ReadColumns {
  readonly fds: Int32Array;
  readonly offsets: Float64Array;
  readonly positions: Uint32Array;
  readonly lengths: Uint32Array;
}

interface NativeQueue {
  submit(
    count: number,
    fds: Int32Array,
    offsets: Float64Array,
    positions: Uint32Array,
    lengths: Uint32Array,
    tags: Int32Array,
  ): number;
}

interface Addon {
  readNow(fd: number, target: Uint8Array, position: number, length: number, offset: number): number;
  misalignment(bytes: Uint8Array, unit: number): number;
  AioQueue: new (
    depth: number,
    memory: Uint8Array,
    onDone: (tag: number, result: number) => void,
  ) => NativeQueue;
}

const addon = loadNativeAddon('node-libaio', 'node_libaio') as Addon;

/** The answers that are no failure. */
export const NOT_IN_MEMORY = -constants.errno.EAGAIN;
export const NOWAIT_UNSUPPORTED = -constants.errno.EOPNOTSUPP;

/**
 * Fills target[position, position + length) from `offset` of the file, as far as the page cache reaches.
 *
 * @returns Bytes read, 0 at the end of the file, or -errno: {@link NOT_IN_MEMORY} where the first byte is not in the
 *   page cache, {@link NOWAIT_UNSUPPORTED} where the file system cannot say.
 */
export function readNow(
  fd: number,
  target: Uint8Array,
  position: number,
  length: number,
  offset: number,
): number {
  return addon.readNow(fd, target, position, length, offset);
}

/** Zeroed memory that starts at a multiple of `unit`, as direct reads want it. */
export function alignedBytes(bytes: number, unit: number): Uint8Array {
  const memory = new Uint8Array(bytes + unit);
  const past = addon.misalignment(memory, unit);
  return memory.subarray(unit - past, unit - past + bytes);
}

/** The kernel's aio for one thread: direct reads into `memory`, each of which ends in a call of `onDone`. */
export class AioQueue {
  readonly #queue: NativeQueue;

  /**
   * @param depth - How many reads may be under way.
   * @param onDone - Told of each: its tag, and bytes read or -errno. It must not throw.
   * @throws system errors: `EAGAIN` where fs.aio-max-nr is used up, `ENOSYS` on a kernel without aio.
   */
  constructor(depth: number, memory: Uint8Array, onDone: (tag: number, result: number) => void) {
    this.#queue = new addon.AioQueue(depth, memory, onDone);
  }

  /**
   * Starts the first `count` of `reads`; their descriptors are open with O_DIRECT.
   *
   * @returns How many were started, from the first on; -errno if that is none.
   */
  submit(count: number, reads: ReadColumns, tags: Int32Array): number {
    const { fds, offsets, positions, lengths } = reads;
    return this.#queue.submit(count, fds, offsets, positions, lengths, tags);
  }
}

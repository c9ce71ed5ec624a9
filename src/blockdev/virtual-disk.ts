/**
 * The disk that the transports export: the sum of a stack of layers.
 *
 * Images are read-only. A disk that can be written is a WritableDisk, and a transport then offers the kernel writes,
 * flushes and discards as well; for any other disk it refuses them. No disk of this project implements WritableDisk yet:
 * the transports' tests do, and a writable layer will.
 */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { RequestObserver } from './request-observer.js';

export interface VirtualDisk extends RandomAccessFile {
  /** As readFully() takes it: how long a read by the kernel may take, in ms. Undefined while the disk is attached. */
  readonly readWaitMs?: number | undefined;
  /** Sees the requests of all servers of this disk. May be set and unset at any time. */
  readonly observer?: RequestObserver | undefined;
  /**
   * The number of bytes from `offset`, at most `length`, that are alike: positive where a layer holds
   * data, negative where nothing does and the bytes are zeroes. Needs nothing but the index.
   */
  extentAt(offset: number, length: number): number;
  /**
   * Fails the loads that wait, and those that come while `work` runs. A transport calls it to take an unused device away:
   * the kernel waits for the reads that are in flight, and they may wait for a registry.
   */
  withoutLoads?<T>(work: () => Promise<T>): Promise<T>;
}

/** Runs `work`, during which no read of the disk waits for bytes, if the disk can do that. */
export async function withoutLoads<T>(disk: VirtualDisk, work: () => Promise<T>): Promise<T> {
  return disk.withoutLoads === undefined ? await work() : await disk.withoutLoads(work);
}

/** A disk that can be written. A range outside [0, sizeBytes] is a RangeError: a bug in the caller. */
export interface WritableDisk extends VirtualDisk {
  /** Later reads see the bytes once it resolves; until then `source` must not change. @throws {ObdError} `NoSpace`, `Io`. */
  write(source: Uint8Array, offset: number): Promise<void>;
  /** Makes the range read as zeroes. @param mayUnmap - Whether its room may be freed. @throws {ObdError} `NoSpace`, `Io`. */
  zero(offset: number, length: number, mayUnmap: boolean): Promise<void>;
  /** Resolves when writes and zeroes that resolved before it are on stable storage. @throws {ObdError} `NoSpace`, `Io`. */
  flush(): Promise<void>;
}

export function isWritable(disk: VirtualDisk): disk is WritableDisk {
  return 'write' in disk;
}

/**
 * The requests that one server makes of its disk. The servers of the transports parse and encode; reading, loading,
 * counting, mapping errors, reporting and waiting for idle are here, once.
 *
 *   1. tryRead() answers in its tick if the bytes are local: no promise, no allocation, and no cost of an observer that
 *      is not there.
 *   2. Everything else runs concurrently. Its callback gets 0 or an errno, exactly once, in a later tick.
 *   3. A request that fails is reported once, before its callback. After stop() no failure is reported: the next server
 *      of the disk answers those requests.
 *   4. Changes that were called back before a flush was requested are done before the disk is asked to flush.
 *
 * The limits of what is in flight are the servers' own: the ring and the queue have theirs in the kernel, an NBD
 * connection has to set some.
 */
import { constants } from 'node:os';
import { ErrorCodes, hasCode } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import type { RequestKind } from './request-observer.js';
import { isWritable, type VirtualDisk, type WritableDisk } from './virtual-disk.js';

export type ReportFailure = (error: unknown, offset: number, length: number) => void;

/** Is called with 0, EIO or ENOSPC. */
export type OnDone = (errno: number) => void;

const { EIO, ENOSPC } = constants.errno;

export class DiskRequests {
  /** The disk, if it can be written. */
  readonly writable: WritableDisk | undefined;
  readonly #disk: VirtualDisk;
  readonly #report: ReportFailure;
  #inFlight = 0;
  #heldBytes = 0;
  #isStopped = false;
  #idle: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  /** @param report - Called for every failed request; offset and length in bytes. */
  constructor(disk: VirtualDisk, report: ReportFailure) {
    this.#disk = disk;
    this.writable = isWritable(disk) ? disk : undefined;
    this.#report = report;
  }

  /** Requests that are not called back yet. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Bytes of the buffers of reads and writes in flight. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Fills `target` now and returns true, or returns false: the caller calls read() then. */
  tryRead(target: Uint8Array, offset: number): boolean {
    const { observer } = this.#disk;
    const arrivedMs = observer === undefined ? 0 : performance.now();
    let isLocal = false;
    try {
      isLocal = this.#disk.tryRead(target, offset);
    } catch {
      // The damage may be curable by a better copy: read() finds out, and reports the error if not.
    }
    if (isLocal && observer !== undefined) {
      const durationMs = performance.now() - arrivedMs;
      observer.ended('read', offset, target.length, durationMs, 'local', undefined);
    }
    return isLocal;
  }

  /**
   * Fills `target`, loading what is not local and loading again what fails its check.
   *
   * @param arrivedMs - When the request arrived, on the clock of performance.now(): its deadline counts from then.
   */
  read(target: Uint8Array, offset: number, done: OnDone, arrivedMs = performance.now()): void {
    const { length } = target;
    const work = () => readFully(this.#disk, target, offset, arrivedMs);
    this.#start('read', offset, length, length, arrivedMs, work, done);
  }

  /** Writes `source`, which must not change until `done`. @param isDurable - Flushes the disk afterwards (FUA). */
  write(source: Uint8Array, offset: number, isDurable: boolean, done: OnDone): void {
    const { length } = source;
    const work = (disk: WritableDisk) =>
      isDurable ? flushed(disk, disk.write(source, offset)) : disk.write(source, offset);
    this.#change('write', offset, length, length, work, done);
  }

  /** Zeroes a range. @param mayUnmap - As WritableDisk.zero(). @param isDurable - As write(). */
  zero(offset: number, length: number, mayUnmap: boolean, isDurable: boolean, done: OnDone): void {
    const work = (disk: WritableDisk) => {
      const zeroed = disk.zero(offset, length, mayUnmap);
      return isDurable ? flushed(disk, zeroed) : zeroed;
    };
    this.#change('zero', offset, length, 0, work, done);
  }

  /** A change of [offset, offset + length) in several steps, which is one request. */
  change(
    kind: 'write' | 'zero',
    offset: number,
    length: number,
    work: (disk: WritableDisk) => Promise<void>,
    done: OnDone,
  ): void {
    this.#change(kind, offset, length, 0, work, done);
  }

  flush(done: OnDone): void {
    this.#change('flush', 0, 0, 0, (disk) => disk.flush(), done);
  }

  /** Reports no failure any more. Resolves when nothing is in flight: the disk is not used any more. Idempotent. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#inFlight === 0) return;
    this.#idle ??= new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
    await this.#idle;
  }

  #change(
    kind: RequestKind,
    offset: number,
    length: number,
    heldBytes: number,
    work: (disk: WritableDisk) => Promise<void>,
    done: OnDone,
  ): void {
    const disk = this.writable;
    if (disk === undefined) throw new TypeError(`a ${kind} of a disk that cannot be written`);
    this.#start(kind, offset, length, heldBytes, performance.now(), () => work(disk), done);
  }

  #start(
    kind: RequestKind,
    offset: number,
    length: number,
    heldBytes: number,
    arrivedMs: number,
    work: () => Promise<void>,
    done: OnDone,
  ): void {
    this.#inFlight++;
    this.#heldBytes += heldBytes;
    this.#disk.observer?.started(kind, offset, length);
    const settle = (errno: number, error: unknown): void => {
      this.#inFlight--;
      this.#heldBytes -= heldBytes;
      if (errno !== 0 && !this.#isStopped) this.#report(error, offset, length);
      const durationMs = performance.now() - arrivedMs;
      this.#disk.observer?.ended(kind, offset, length, durationMs, 'loaded', error);
      done(errno);
      if (this.#inFlight === 0) this.#onIdle?.();
    };
    work().then(
      () => settle(0, undefined),
      (error: unknown) => settle(errnoOf(kind, error), error),
    );
  }
}

/** A disk has no room for changes only: a read fails with NoSpace where the cache has none, which is no ENOSPC. */
function errnoOf(kind: RequestKind, error: unknown): number {
  return kind !== 'read' && hasCode(error, ErrorCodes.NoSpace) ? ENOSPC : EIO;
}

async function flushed(disk: WritableDisk, change: Promise<void>): Promise<void> {
  await change;
  await disk.flush();
}

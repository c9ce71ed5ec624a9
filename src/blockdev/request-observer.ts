/** The seam where latency, traces and audit see the requests of a disk: see VirtualDisk.observer. */

export type RequestKind = 'read' | 'write' | 'zero' | 'flush';

/** `local`: answered in the tick in which the request arrived, from this machine. `loaded`: answered later. */
export type ServedFrom = 'local' | 'loaded';

/**
 * Is called by DiskRequests, synchronously, on the thread that serves the disk: it must be quick, and must not throw.
 * Arguments instead of an object, so that a local read allocates none. Offsets and lengths are in bytes.
 */
export interface RequestObserver {
  /** A request that cannot be answered at once has started. Calls ended() later. */
  started(kind: RequestKind, offset: number, length: number): void;

  /**
   * A request has ended.
   *
   * @param durationMs - From its arrival to its answer.
   * @param error - Why it failed; undefined if it succeeded. A local read never fails: it is loaded instead.
   */
  ended(
    kind: RequestKind,
    offset: number,
    length: number,
    durationMs: number,
    servedFrom: ServedFrom,
    error: unknown,
  ): void;
}

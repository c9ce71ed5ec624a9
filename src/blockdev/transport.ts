/**
 * A way to turn a VirtualDisk into a block device of this kernel. Each sibling folder is one; whoever
 * attaches knows nothing of how it is done.
 *
 *   1. A device outlives the process that serves it. Until another process resumes it, reads and writes wait; in
 *      flight ones are answered then. Where the kernel lets us set a limit, that is absenceSeconds().
 *   2. What a transport makes in the kernel carries the name of its daemon (by the directory it is given) and the id, so
 *      that a later process finds its own and touches nobody else's.
 *   3. All methods are called on the thread that serves the device, except missing(), survivors() and clear(), which any
 *      thread and process may call.
 */
import type { VirtualDisk } from './virtual-disk.js';

/** In the order of preference. */
export const TRANSPORT_NAMES = ['ublk', 'tcmu', 'nbd', 'fuse'] as const;
export type TransportName = (typeof TRANSPORT_NAMES)[number];

const READ_DEADLINE_MS = 600_000;
/** The daemon counts from when it takes a request, the kernel from when it queues one, which can be this much earlier. */
const MARGIN_SECONDS = 60;

export interface TransportSettings {
  /** How long the daemon itself lets a read wait before it answers EIO. */
  readonly readDeadlineMs?: number;
  /** Called once for each request that is answered with an error. */
  readonly onReadError?: (failure: DeviceFailure) => void;
  /** Called once for each device that answers EIO from now on, because what serves it outside of this process has ended. */
  readonly onDeath?: (id: string) => void;
}

/**
 * How long the kernel waits for the answer to a request, or for a process that serves the device, before it answers EIO
 * itself: longer than the daemon, so that the daemon decides.
 */
export function absenceSeconds({ readDeadlineMs = READ_DEADLINE_MS }: TransportSettings): number {
  return Math.ceil(readDeadlineMs / 1000) + MARGIN_SECONDS;
}

/** One read, or change of a WritableDisk, that the kernel was told had failed. */
export interface DeviceFailure {
  readonly id: string;
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
  readonly error: unknown;
}

export interface AttachedDevice {
  /** The device node, e.g. /dev/loop3. It exists, and answers reads, when attach() resolves. */
  readonly path: string;
  /**
   * Whether the node has been given back, so that by now it may be another's: nobody may use `path` any more. True
   * before detach() has resolved where something behind the node could not be freed.
   */
  readonly isGone: boolean;
  /**
   * Takes the device away and frees what it used. Idempotent. Once nobody uses the device, its waiting reads fail.
   * @throws {ObdError} `Busy` while it is mounted or open; the device then stays as it was. `Busy` or `Io` with
   *   `isGone` true for what is left behind the node; the next call goes on with that.
   */
  detach(): Promise<void>;
  /**
   * Stops serving and leaves the device in the kernel for the next process to resume, as a killed one would. The disk
   * is not read any more when it resolves. Idempotent; the object is of no use afterwards.
   */
  release(): Promise<void>;
}

/** A device, or a part of one, that an earlier process attached and this one does not serve. */
export interface Survivor {
  readonly id: string;
  /** The device node, where the device is whole and was handed out or may have been; undefined for debris. */
  readonly path: string | undefined;
  /** The node of a device that may have been handed out and answers EIO: it can be cleared, but not resumed. */
  readonly deadPath?: string;
}

export interface Transport {
  readonly name: TransportName;

  /** What this host lacks for it, with the remedy, as the end of the sentence "nbd cannot be used: ..."; undefined if nothing. */
  missing(): Promise<string | undefined>;

  /**
   * @param id - Names the device among this daemon's; [A-Za-z0-9_-][A-Za-z0-9._-]{0,63}.
   * @throws {ObdError} `Host` if this host lacks what the transport needs, `Busy`, `Io`; what reading the first bytes of
   *   the disk throws. Nothing is left behind.
   */
  attach(id: string, disk: VirtualDisk): Promise<AttachedDevice>;

  /** What earlier processes of this daemon left, whole and in part. Those of another daemon, or program, are not among it. */
  survivors(): Promise<Survivor[]>;

  /**
   * Serves a survivor that is whole again, from the same disk as before; what waited is answered.
   * @throws {ObdError} `NotFound` if there is none or it is debris, `FailedPrecondition` if the disk is of another size, `Io`.
   */
  resume(id: string, disk: VirtualDisk): Promise<AttachedDevice>;

  /**
   * Takes a survivor away, whole or in part. Idempotent. A dead one that is in use goes with its last user.
   * @throws {ObdError} `Busy` while it is mounted or open, `Io`.
   */
  clear(id: string): Promise<void>;

  /**
   * Fails the reads of a survivor that is not served, which wait for a server; it may be dead afterwards. Where there is no
   * such method, they wait until it is served or cleared.
   */
  endReads?(id: string): Promise<void>;
}

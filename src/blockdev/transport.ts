/**
 * A way to turn a VirtualDisk into a block device of this kernel. Each sibling folder is one; its callers need not know
 * how it works.
 *
 *   1. A device outlives the process that serves it. Until another process resumes it, reads and writes wait; those in
 *      flight are answered then. Where the kernel lets us set a limit, that is absenceSeconds().
 *   2. The kernel objects of a transport carry the name of their daemon (by the directory it is given) and the id, so
 *      a later process finds its own and touches no others.
 *   3. All methods are called on the thread that serves the device, except unavailableReason(), orphans() and clear(),
 *      which any thread and process may call.
 */
import type { VirtualDisk } from './virtual-disk.js';

/** In the order of preference. */
export const TRANSPORT_NAMES = ['ublk', 'tcmu', 'nbd', 'fuse'] as const;
export type TransportName = (typeof TRANSPORT_NAMES)[number];

const READ_DEADLINE_MS = 600_000;
/** The daemon counts from when it takes a request, the kernel from when it queues one, which can be this much earlier. */
const MARGIN_SECONDS = 60;

/** The operations of a transport's devices beyond reading. A disk that can do less gets a device that does less. */
export interface TransportCapabilities {
  /** Devices of a WritableDisk can be written. */
  readonly write: boolean;
  /** Discarded ranges reach the disk, which may free their room. */
  readonly discard: boolean;
  /** A device can change its size while it is in use. */
  readonly resize: boolean;
}

/** The capabilities that an image needs. */
export const READ_ONLY: TransportCapabilities = { write: false, discard: false, resize: false };

export interface TransportSettings {
  /** How long the daemon itself lets a read wait before it answers EIO. */
  readonly readDeadlineMs?: number;
  /** Called once for each request that is answered with an error. */
  readonly onReadError?: (failure: DeviceFailure) => void;
  /** Called once for each device that answers EIO from now on, because its server outside of this process has ended. */
  readonly onDeath?: (id: string) => void;
}

/**
 * How long the kernel waits for the answer to a request, or for a process that serves the device, before it answers EIO
 * itself: longer than the daemon, so that the daemon decides.
 */
export function absenceSeconds({ readDeadlineMs = READ_DEADLINE_MS }: TransportSettings): number {
  return Math.ceil(readDeadlineMs / 1000) + MARGIN_SECONDS;
}

/** One failed read, or change of a WritableDisk, that the kernel was told of. */
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
   * Whether the node has been given back, so that another device may have it by now: do not use `path` any more. True
   * before detach() has resolved if something behind the node could not be freed.
   */
  readonly isGone: boolean;
  /**
   * Takes the device away and frees what it used. Idempotent. Once the device has no user, its waiting reads fail.
   * @throws {ObdError} `Busy` while it is mounted or open, which changes nothing. `Busy` or `Io` with `isGone` true if
   *   something is left behind the node; the next call continues there.
   */
  detach(): Promise<void>;
  /**
   * Stops serving and leaves the device in the kernel for the next process to resume, as a killed process would. When it
   * resolves, the disk is no longer read. Idempotent; detach() is refused afterwards (`FailedPrecondition`).
   */
  release(): Promise<void>;
}

/** A device, or a part of one, that an earlier process attached and this one does not serve. */
export interface OrphanedDevice {
  readonly id: string;
  /** The device node, if the device is whole and was or may have been handed out; undefined for an orphaned part. */
  readonly path: string | undefined;
  /** The node of a device that may have been handed out and answers EIO: it can be cleared, but not resumed. */
  readonly deadPath?: string;
}

export interface Transport {
  readonly name: TransportName;
  readonly capabilities: TransportCapabilities;

  /** The missing requirement, with the remedy, as the end of the sentence "nbd cannot be used: ..."; undefined if none. */
  unavailableReason(): Promise<string | undefined>;

  /**
   * @param id - Names the device among this daemon's; [A-Za-z0-9_-][A-Za-z0-9._-]{0,63}.
   * @throws {ObdError} `Host` if this host lacks what the transport needs, `Unsupported` for a WritableDisk that the
   *   transport cannot write, `Busy`, `Io`; what reading the first bytes of the disk throws. Nothing is left behind.
   */
  attach(id: string, disk: VirtualDisk): Promise<AttachedDevice>;

  /** The devices, whole and partial, that earlier processes of this daemon left; none of other daemons or programs. */
  orphans(): Promise<OrphanedDevice[]>;

  /**
   * Serves a whole orphan again, from the same disk as before; waiting requests are answered.
   * @throws {ObdError} `NotFound` if there is none or only a part, `FailedPrecondition` if the disk has another size, `Io`.
   */
  resume(id: string, disk: VirtualDisk): Promise<AttachedDevice>;

  /**
   * Takes an orphan away, whole or partial. Idempotent. A dead one that is in use goes with its last user.
   * @throws {ObdError} `Busy` while it is mounted or open, `Io`.
   */
  clear(id: string): Promise<void>;

  /**
   * Fails the reads of an unserved orphan, which wait for a server; it may be dead afterwards. Without this method they
   * wait until the orphan is served or cleared.
   */
  endReads?(id: string): Promise<void>;
}

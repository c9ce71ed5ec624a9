/** Where devices are served, on any thread: the interface that the table of devices uses. */
import type { TransportName } from '../blockdev/transport.js';

/** The figures of one device. */
export interface DeviceState {
  /** Virtual size. */
  readonly sizeBytes: number;
  readonly layers: number;
  /** Sum of the sizes of the remote blobs. */
  readonly remoteBytes: number;
  /** How many layers are remote, and of how many of those the reads are proved by hash trees. */
  readonly remoteLayers: number;
  readonly provedLayers: number;
  /** The part of remoteBytes that is on this disk. */
  readonly cachedBytes: number;
  /** Bytes that this device made the cache fetch. */
  readonly fetchedBytes: number;
  readonly fetchRequests: number;
  /** Reads answered with an error. */
  readonly readErrors: number;
  /** Reads that wait for the registry, how long the first of them has waited, and why: empty if there was no answer yet. */
  readonly waitingReads: number;
  readonly waitingMs: number;
  readonly waitingReason: string;
  /** As FillState; empty if the rest of the image is not fetched in the background. */
  readonly fillState: string;
  /** Why that pauses; else empty. */
  readonly fillProblem: string;
  /** Pages of its start that came as a hot blob, and how many of them were read. 0 without one. */
  readonly hotPages: number;
  readonly hotPagesRead: number;
}

export interface HostedDevice {
  readonly path: string;
  /** As AttachedDevice.isGone. */
  readonly isGone: boolean;
  /** Whether it answers EIO for good, because a process that it depends on has ended: see TransportSettings.onDeath. */
  readonly isDead: boolean;
  state(): DeviceState;
  /** Answers the reads that wait for bytes with EIO. */
  endReads(): Promise<void>;
  /** As AttachedDevice.detach(), and closes the image. */
  detach(): Promise<void>;
  /** As AttachedDevice.release(), and closes the image. */
  release(): Promise<void>;
}

export interface DeviceHost {
  /** Opens the image and attaches it. @throws {ObdError} what either throws; nothing is left behind. */
  attach(id: string, configPath: string, transport: TransportName): Promise<HostedDevice>;
  /** Opens the image and resumes the orphan. @throws {ObdError} what either throws; the orphan stays as it was. */
  resume(id: string, configPath: string, transport: TransportName): Promise<HostedDevice>;
}

/** One id of the table of devices: its state, and the operation in progress. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { TransportName } from '../blockdev/transport.js';
import { messageOf } from '../errors.js';
import type { DeviceState, HostedDevice } from './device-host.js';
import type { DeviceRecord } from './device-records.js';

/** Between attempts to serve an orphan again: first, and at most. Each attempt has its own limits. */
const PAUSE_MS = 100;
const PAUSE_MS_MAX = 10_000;

/** For a device whose state is "dead". */
export const DEAD_REMEDY =
  'fuse-file, the process that answers its reads, was ended, so every read fails; restart the containers that use it, which attaches it anew, or `obdctl umount` and mount it again';

const UNKNOWN: DeviceState = {
  sizeBytes: 0,
  layers: 0,
  remoteBytes: 0,
  remoteLayers: 0,
  provedLayers: 0,
  cachedBytes: 0,
  fetchedBytes: 0,
  fetchRequests: 0,
  readErrors: 0,
  waitingReads: 0,
  waitingMs: 0,
  waitingReason: '',
  fillState: '',
  fillProblem: '',
  hotPages: 0,
  hotPagesRead: 0,
};

export interface DeviceEntry {
  readonly configPath: string;
  /** Rejects, and the entry is gone from the table, if there will be no device. */
  readonly device: Promise<HostedDevice>;
  /** The same without waiting, once it is there. */
  current?: HostedDevice;
  transport?: TransportName;
  /** While an earlier process's device is not served yet. */
  readonly recovery?: Recovery;
  detaching?: Promise<void> | undefined;
}

/** Serving an orphan again, as often as it takes. */
export class Recovery {
  readonly path: string;
  /** Why the last attempt failed. */
  problem = '';
  /** Settles with the first attempt, and never rejects: whether the device is served. */
  readonly firstAttempt: Promise<boolean>;
  readonly device: Promise<HostedDevice>;
  readonly #stop = new AbortController();

  /**
   * @param resume - One attempt.
   * @param onFailure - Called for each failed attempt.
   */
  constructor(
    path: string,
    resume: () => Promise<HostedDevice>,
    onFailure: (error: unknown) => void,
  ) {
    this.path = path;
    let settleFirst: (served: boolean) => void = () => {};
    this.firstAttempt = new Promise((resolve) => {
      settleFirst = resolve;
    });
    this.device = this.#untilServed(resume, (error) => {
      onFailure(error);
      settleFirst(false);
    });
    this.device.then(
      () => settleFirst(true),
      () => settleFirst(false),
    );
  }

  /** After the attempt that is under way; `device` settles then. */
  stop(): void {
    this.#stop.abort();
  }

  async #untilServed(
    resume: () => Promise<HostedDevice>,
    onFailure: (error: unknown) => void,
  ): Promise<HostedDevice> {
    for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX)) {
      try {
        return await resume();
      } catch (error) {
        this.problem = messageOf(error);
        onFailure(error);
        if (this.#stop.signal.aborted) throw error;
      }
      // An abort ends the pause; the next check of the signal sees it.
      await sleep(pauseMs, undefined, { signal: this.#stop.signal }).catch(() => {});
      this.#stop.signal.throwIfAborted();
    }
  }
}

/** The device as clients see it, for an entry that is attached or recovering. */
export function describeEntry(id: string, entry: DeviceEntry, nbdSocketPath: string) {
  const { configPath, current, recovery, transport } = entry;
  const path = current?.path ?? recovery?.path;
  if (path === undefined || transport === undefined) return undefined;
  return {
    id,
    configPath,
    path,
    transport,
    ...(current?.state() ?? UNKNOWN),
    nbdUri: `nbd+unix:///${id}?socket=${encodeURIComponent(nbdSocketPath)}`,
    ...stateOf(current, recovery),
  };
}

function stateOf(current: HostedDevice | undefined, recovery: Recovery | undefined) {
  if (current === undefined) return { state: 'recovering', problem: recovery?.problem ?? '' };
  if (current.isDead) return { state: 'dead', problem: DEAD_REMEDY };
  return { state: 'attached', problem: '' };
}

/** A device that an earlier process attached, as the table takes it over. */
export interface RecoverableDevice {
  readonly record: DeviceRecord;
  readonly path: string;
}

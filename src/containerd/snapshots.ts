/** Client of one of containerd's snapshotters, through containerd, which maps callers' snapshot names by namespace. */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { SnapshotsDefinition } from '../grpc/gen/containerd/services/snapshots/v1/Snapshots.js';
import type { Mount__Output } from '../grpc/gen/containerd/types/Mount.js';
import type { ClientMethod, GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';
import type { Labels } from './content-store.js';

const methods = loadService<SnapshotsDefinition>(
  'containerd/services/snapshots/v1/snapshots.proto',
  'containerd.services.snapshots.v1.Snapshots',
);

/** A snapshotter may have to query a registry, attach a device or delete many files. */
const TIMEOUT_MS = 120_000;

/**
 * For how long a plugin that containerd does not reach is asked again. After a failed connection containerd waits for
 * at most 3 s before it tries the next (`MaxDelay` of its proxy plugins), although the plugin may have started.
 */
const RECONNECT_MS_MAX = 4_000;
const RECONNECT_POLL_MS = 250;

export interface SnapshotInfo {
  readonly name: string;
  readonly parent: string;
  readonly kind: string;
  readonly labels: Labels;
}

export class Snapshots {
  readonly #client: GrpcClient;
  readonly #snapshotter: string;

  constructor(client: GrpcClient, snapshotter: string) {
    this.#client = client;
    this.#snapshotter = snapshotter;
  }

  /** @throws {ObdError} `NotFound`. */
  async stat(key: string): Promise<SnapshotInfo> {
    const { info } = await this.#call(methods.Stat, { key });
    if (info === null) {
      throw new ObdError(ErrorCodes.Io, 'Cannot use an answer of containerd: no info');
    }
    const { name, parent, kind, labels } = info;
    return { name, parent, kind, labels };
  }

  /**
   * @param parent - Name of a committed snapshot; "" for none.
   * @returns The mounts to write through.
   * @throws {ObdError} `AlreadyExists`, also if the snapshot that the labels ask for (`containerd.io/snapshot.ref`) now
   *   exists.
   */
  async prepare(key: string, parent: string, labels: Labels): Promise<Mount__Output[]> {
    const { mounts } = await this.#call(methods.Prepare, { key, parent, labels });
    return mounts;
  }

  /** @throws {ObdError} `AlreadyExists`, `NotFound`. */
  async commit(name: string, key: string, labels: Labels): Promise<void> {
    await this.#call(methods.Commit, { name, key, labels });
  }

  /** @throws {ObdError} `NotFound`, or `FailedPrecondition` while other snapshots are based on it. */
  async remove(key: string): Promise<void> {
    await this.#call(methods.Remove, { key });
  }

  async #call<Request, Response>(
    method: ClientMethod<Request & { snapshotter: string }, Response>,
    request: Request,
  ): Promise<Response> {
    const named = { ...request, snapshotter: this.#snapshotter };
    const deadline = Date.now() + RECONNECT_MS_MAX;
    for (;;) {
      try {
        return await this.#client.call(method, named, { timeoutMs: TIMEOUT_MS });
      } catch (error) {
        // containerd answers on behalf of an unreachable plugin; only the message tells which of the two is down.
        if (!hasCode(error, ErrorCodes.Unavailable) || !/dial(?:ing)? .*unix/.test(error.message)) {
          throw error;
        }
        if (Date.now() >= deadline) {
          throw new ObdError(
            ErrorCodes.Unavailable,
            `Cannot use the snapshotter "${this.#snapshotter}": containerd does not reach it; start it, and check its address among containerd's proxy_plugins`,
            {},
            error,
          );
        }
      }
      await sleep(RECONNECT_POLL_MS);
    }
  }
}

/** containerd's leases: they protect objects from garbage collection while no record refers to them yet. */
import { randomUUID } from 'node:crypto';
import type { LeasesDefinition } from '../grpc/gen/containerd/services/leases/v1/Leases.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';
import { ownerState, ownIdentity } from '../io/process-identity.js';

/** The process that made a lease, in the form of src/io/process-identity.ts. */
const OWNER_LABEL = 'obd-ts/owner';

const methods = loadService<LeasesDefinition>(
  'containerd/services/leases/v1/leases.proto',
  'containerd.services.leases.v1.Leases',
);

export class Leases {
  readonly #client: GrpcClient;

  constructor(client: GrpcClient) {
    this.#client = client;
  }

  /**
   * Creates a lease that names its owner process.
   *
   * @param lifeMs - The lease expires after this time, so it does not outlive a dead owner for long.
   * @returns Its id, for underLease().
   */
  async create(lifeMs: number): Promise<string> {
    const id = `obd-ts-${randomUUID()}`;
    const expires = new Date(Date.now() + lifeMs).toISOString();
    const labels = { 'containerd.io/gc.expire': expires, [OWNER_LABEL]: ownIdentity() };
    await this.#client.call(methods.Create, { id, labels });
    return id;
  }

  /** Removes the leases of dead processes; containerd then collects the objects that only those leases kept. */
  async removeAbandoned(): Promise<void> {
    const { leases } = await this.#client.call(methods.List, {
      filters: [`labels."${OWNER_LABEL}"`],
    });
    for (const { id, labels } of leases) {
      const state = ownerState(labels[OWNER_LABEL] ?? '');
      if (state === 'ended' || state === 'other-boot') await this.remove(id, true);
    }
  }

  /** @param sync - Return only after containerd has collected the objects that only this lease kept. */
  async remove(id: string, sync: boolean): Promise<void> {
    await this.#client.call(methods.Delete, { id, sync });
  }
}

/** containerd's leases: what keeps things from garbage collection while nothing refers to them yet. */
import { randomUUID } from 'node:crypto';
import type { LeasesDefinition } from '../grpc/gen/containerd/services/leases/v1/Leases.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';

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
   * @param lifeMs - After so long it keeps nothing any more, even if whoever made it has died.
   * @returns Its id, for underLease().
   */
  async create(lifeMs: number): Promise<string> {
    const id = `obd-ts-${randomUUID()}`;
    const expires = new Date(Date.now() + lifeMs).toISOString();
    await this.#client.call(methods.Create, { id, labels: { 'containerd.io/gc.expire': expires } });
    return id;
  }

  /** @param sync - Return only once what it alone kept is collected. */
  async remove(id: string, sync: boolean): Promise<void> {
    await this.#client.call(methods.Delete, { id, sync });
  }
}

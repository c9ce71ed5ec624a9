/** Asks obd-snapshotter which layers it refuses to serve, and why. */
import type { SnapshotsDefinition } from '../grpc/gen/containerd/services/snapshots/v1/Snapshots.js';
import { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';
import { REFUSED_LABEL, SERVED_LABEL } from '../snapshotter/labels.js';

const TIMEOUT_MS = 10_000;

const methods = loadService<SnapshotsDefinition>(
  'containerd/services/snapshots/v1/snapshots.proto',
  'containerd.services.snapshots.v1.Snapshots',
);

/** Returns one sentence for each layer. @throws {ObdError} `Unavailable` if the snapshotter does not answer. */
export async function refusedLayers(socketPath: string): Promise<string[]> {
  const client = new GrpcClient(socketPath, { peer: 'obd-snapshotter', timeoutMs: TIMEOUT_MS });
  try {
    const reasons: string[] = [];
    const filters = [`labels."${SERVED_LABEL}"==refused`];
    for await (const { info } of client.stream(methods.List, { filters })) {
      for (const { name, labels } of info) reasons.push(labels[REFUSED_LABEL] ?? name);
    }
    return reasons;
  } finally {
    client.close();
  }
}

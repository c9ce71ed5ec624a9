/** What containerd is, and what it can: its version and its snapshotters. */
import type { IntrospectionDefinition } from '../grpc/gen/containerd/services/introspection/v1/Introspection.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';

const introspection = loadService<IntrospectionDefinition>(
  'containerd/services/introspection/v1/introspection.proto',
  'containerd.services.introspection.v1.Introspection',
);

export interface SnapshotterPlugin {
  readonly name: string;
  /** Why it did not start, in containerd's words; undefined for one that can be used. */
  readonly problem: string | undefined;
  /** Whether it is a program of its own, behind a socket, and not part of containerd. */
  readonly isProxy: boolean;
}

/** The built-in ones and the proxy plugins of the configuration, whether or not these answer. */
export async function snapshotterPlugins(client: GrpcClient): Promise<SnapshotterPlugin[]> {
  const filters = ['type==io.containerd.snapshotter.v1'];
  const { plugins } = await client.call(introspection.Plugins, { filters });
  return plugins.map(({ id, initErr, exports }) => ({
    name: id,
    problem: initErr?.message,
    isProxy: exports['address'] !== undefined,
  }));
}

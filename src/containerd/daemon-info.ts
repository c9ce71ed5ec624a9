/** containerd's version and its snapshotters. */
import type { IntrospectionDefinition } from '../grpc/gen/containerd/services/introspection/v1/Introspection.js';
import type { GrpcClient } from '../grpc/grpc-client.js';
import { loadService } from '../grpc/proto.js';

const introspection = loadService<IntrospectionDefinition>(
  'containerd/services/introspection/v1/introspection.proto',
  'containerd.services.introspection.v1.Introspection',
);

export interface SnapshotterPlugin {
  readonly name: string;
  /** Why the plugin did not start, in containerd's words; undefined if it can be used. */
  readonly problem: string | undefined;
  /** Whether the plugin is a separate program behind a socket, not part of containerd. */
  readonly isProxy: boolean;
}

/** Lists built-in snapshotters and configured proxy plugins, even those that do not answer. */
export async function snapshotterPlugins(client: GrpcClient): Promise<SnapshotterPlugin[]> {
  const filters = ['type==io.containerd.snapshotter.v1'];
  const { plugins } = await client.call(introspection.Plugins, { filters });
  return plugins.map(({ id, initErr, exports }) => ({
    name: id,
    problem: initErr?.message,
    isProxy: exports['address'] !== undefined,
  }));
}

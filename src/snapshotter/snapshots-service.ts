/** containerd.services.snapshots.v1 on a Snapshotter: messages in and out, and nothing else. */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Info } from '../grpc/gen/containerd/services/snapshots/v1/Info.js';
import type {
  SnapshotsDefinition,
  SnapshotsHandlers,
} from '../grpc/gen/containerd/services/snapshots/v1/Snapshots.js';
import { type Service, service } from '../grpc/grpc-server.js';
import { loadService } from '../grpc/proto.js';
import { parseFilters } from './filter.js';
import type { Kind, Labels, Snapshot } from './snapshot.js';
import type { Snapshotter } from './snapshotter.js';

/** containerd's own snapshotters send as many in one message. */
const LIST_BATCH = 100;
const NAMESPACE_HEADER = 'containerd-namespace';

const KIND_NAMES = {
  active: 'ACTIVE',
  view: 'VIEW',
  committed: 'COMMITTED',
} as const satisfies Record<Kind, string>;

export function snapshotsService(snapshotter: Snapshotter): Service {
  const definition = loadService<SnapshotsDefinition>(
    'containerd/services/snapshots/v1/snapshots.proto',
    'containerd.services.snapshots.v1.Snapshots',
  );
  return service<SnapshotsHandlers>(definition, {
    Prepare: async ({ key, parent, labels }, { header }) => {
      const namespace = namespaceOf(key, header(NAMESPACE_HEADER));
      return { mounts: await snapshotter.prepare({ key, parent, labels, namespace }) };
    },
    View: async ({ key, parent, labels }, { header }) => {
      const namespace = namespaceOf(key, header(NAMESPACE_HEADER));
      return { mounts: await snapshotter.view({ key, parent, labels, namespace }) };
    },
    Mounts: async ({ key }) => ({ mounts: await snapshotter.mounts(key) }),
    Commit: async ({ name, key, labels, parent }) => {
      if (parent !== '') {
        const problem = `Cannot commit "${key}" on another parent: this snapshotter does not announce "rebase"`;
        throw new ObdError(ErrorCodes.InvalidArgument, problem);
      }
      await snapshotter.commit(name, key, labels);
      return {};
    },
    Remove: async ({ key }) => {
      await snapshotter.remove(key);
      return {};
    },
    Stat: async ({ key }) => ({ info: infoOf(snapshotter.stat(key)) }),
    Update: async ({ info, updateMask }) => {
      if (info === null) throw new ObdError(ErrorCodes.InvalidArgument, 'Cannot update: no info');
      const change = labelChange(info.labels, updateMask?.paths ?? []);
      return { info: infoOf(snapshotter.setLabels(info.name, change)) };
    },
    List: async function* ({ filters }) {
      const snapshots = snapshotter.list(parseFilters(filters));
      for (let at = 0; at < snapshots.length; at += LIST_BATCH) {
        yield { info: snapshots.slice(at, at + LIST_BATCH).map(infoOf) };
      }
    },
    Usage: async ({ key }) => {
      const { sizeBytes, inodes } = await snapshotter.usage(key);
      return { size: sizeBytes, inodes };
    },
    Cleanup: async () => {
      await snapshotter.cleanup();
      return {};
    },
  });
}

/** Debian's containerd 1.6 does not forward the header; the keys that it makes for us all begin with the namespace. */
function namespaceOf(key: string, header: string | undefined): string | undefined {
  return header ?? /^([^/]+)\/[0-9]+\//.exec(key)?.[1];
}

/** The change of labels that a field mask asks for; without a mask, the given labels replace all others. */
function labelChange(given: Labels, paths: readonly string[]): (labels: Labels) => Labels {
  const refused = paths.find((path) => path !== 'labels' && !path.startsWith('labels.'));
  if (refused !== undefined) {
    const problem = `Cannot update "${refused}" of a snapshot: only labels can be changed`;
    throw new ObdError(ErrorCodes.InvalidArgument, problem);
  }
  if (paths.length === 0 || paths.includes('labels')) return () => given;
  const keys = paths.map((path) => path.slice('labels.'.length));
  // An empty value takes the label away.
  const changes = Object.fromEntries(keys.map((key) => [key, given[key] ?? '']));
  return (labels) => ({ ...labels, ...changes });
}

function infoOf(snapshot: Snapshot): Info {
  const { name, parent, kind, labels, createdAtMs, updatedAtMs } = snapshot;
  const createdAt = timestampOf(createdAtMs);
  const updatedAt = timestampOf(updatedAtMs);
  return { name, parent, kind: KIND_NAMES[kind], createdAt, updatedAt, labels: { ...labels } };
}

function timestampOf(ms: number): { seconds: number; nanos: number } {
  return { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1_000_000 };
}

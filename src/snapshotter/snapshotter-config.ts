/** What can be set in obd-snapshotter's configuration file, and the examples that --help shows. */
import * as z from 'zod';
import { absolutePath, COMMON_KEYS_EXAMPLE, commonKeys } from '../config/config-values.js';

export const SNAPSHOTTER_CONFIG_PATH = '/etc/obd-ts/snapshotter.toml';

export const snapshotterConfig = z.strictObject({
  socket: absolutePath.default('/run/obd-ts/snapshotter.sock'),
  root: absolutePath
    .refine((path) => !/[:,\\\s"]/.test(path), 'must have no space, quote, ":", "," or "\\" in it')
    .default('/var/lib/obd-ts/snapshotter'),
  blockd_socket: absolutePath.default('/run/obd-ts/blockd.sock'),
  containerd_socket: absolutePath.default('/run/containerd/containerd.sock'),
  share_between_namespaces: z.boolean().default(true),
  namespaces: z.record(z.string(), z.strictObject({ docker_config: absolutePath })).default({}),
  ...commonKeys,
});

/** Every key with its default, or a likely value where the default is none. */
export const SNAPSHOTTER_CONFIG_EXAMPLE = `\
# Where containerd reaches this daemon.
socket = "/run/obd-ts/snapshotter.sock"
# Records, containers' writable directories and the files of plain layers. Of one daemon alone.
root = "/var/lib/obd-ts/snapshotter"
# Where obd-blockd listens, and containerd.
blockd_socket = "/run/obd-ts/blockd.sock"
containerd_socket = "/run/containerd/containerd.sock"
# Whether a layer that one of containerd's namespaces has pulled is served lazily to all others. If not, a namespace needs
# a login of its own, below, that the registry gives the layer to; without one, containerd downloads the layer.
share_between_namespaces = true
${COMMON_KEYS_EXAMPLE}
[namespaces.team-a]
# Logins for what this namespace of containerd pulls, in place of those above.
docker_config = "/etc/obd-ts/team-a.json"
`;

/** What containerd must be told, in its own configuration. */
export const CONTAINERD_CONFIG_EXAMPLE = `\
[proxy_plugins.obd-ts]
type = "snapshot"
address = "/run/obd-ts/snapshotter.sock"
`;

/** The keys of obd-snapshotter's configuration file, and the examples that --help shows. */
import { resolve } from 'node:path';
import * as z from 'zod';
import { absolutePath, COMMON_KEYS_EXAMPLE, commonKeys } from '../config/config-values.js';
import { ErrorCodes, ObdError } from '../errors.js';

export const SNAPSHOTTER_CONFIG_PATH = '/etc/obd-ts/snapshotter.toml';

/** The plugin that `socket` and `root` at the top of the file configure. */
const PLUGIN_NAME = 'obd-ts';

const storeRoot = absolutePath.refine(
  (path) => !/[:,\\\s"]/.test(path),
  'must have no space, quote, ":", "," or "\\" in it',
);
const pluginTable = z.strictObject({ socket: absolutePath, root: storeRoot });

export type PluginConfig = z.infer<typeof pluginTable>;

export const snapshotterConfig = z.strictObject({
  socket: absolutePath.default('/run/obd-ts/snapshotter.sock'),
  root: storeRoot.default('/var/lib/obd-ts/snapshotter'),
  plugins: z.record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,75}$/), pluginTable).default({}),
  blockd_socket: absolutePath.default('/run/obd-ts/blockd.sock'),
  containerd_socket: absolutePath.default('/run/containerd/containerd.sock'),
  share_between_namespaces: z.boolean().default(true),
  namespaces: z.record(z.string(), z.strictObject({ docker_config: absolutePath })).default({}),
  ...commonKeys,
});

export type SnapshotterConfig = z.infer<typeof snapshotterConfig>;

/** Every key with its default, or a likely value where the default is none. */
export const SNAPSHOTTER_CONFIG_EXAMPLE = `\
# Where containerd reaches this daemon.
socket = "/run/obd-ts/snapshotter.sock"
# Records, containers' writable directories and the files of plain layers. No other daemon may use it.
root = "/var/lib/obd-ts/snapshotter"
# Where obd-blockd listens, and containerd.
blockd_socket = "/run/obd-ts/blockd.sock"
containerd_socket = "/run/containerd/containerd.sock"
# Whether a layer that one of containerd's namespaces has pulled is served lazily to all others. If not, a namespace needs
# its own login, below, that may read the layer from the registry; without one, containerd downloads the layer.
share_between_namespaces = true
${COMMON_KEYS_EXAMPLE}
[namespaces.team-a]
# Logins for what this namespace of containerd pulls, in place of those above.
docker_config = "/etc/obd-ts/team-a.json"

[plugins.overlaybd]
# The same snapshotter under another name, with its own socket and store. BuildKit, and nerdctl before containerd 2,
# know a lazy snapshotter by the name overlaybd.
socket = "/run/obd-ts/overlaybd.sock"
root = "/var/lib/obd-ts/overlaybd"
`;

/**
 * Every plugin to serve, by name.
 *
 * @throws {ObdError} `InvalidArgument` if two share a socket or a store.
 */
export function pluginsOf({
  socket,
  root,
  plugins,
}: z.infer<typeof snapshotterConfig>): Map<string, PluginConfig> {
  const all = new Map(Object.entries({ [PLUGIN_NAME]: { socket, root }, ...plugins }));
  if (Object.hasOwn(plugins, PLUGIN_NAME)) {
    throw refused(`plugin "${PLUGIN_NAME}" has "socket" and "root" at the top of the file`);
  }
  for (const [name, plugin] of all) {
    for (const [other, { socket, root }] of all) {
      if (name === other) continue;
      const both = `plugins "${other}" and "${name}"`;
      if (resolve(plugin.socket) === resolve(socket))
        throw refused(`${both} have one socket, ${socket}`);
      if (`${resolve(plugin.root)}/`.startsWith(`${resolve(root)}/`)) {
        throw refused(`${both} have one store, or one in the other's: ${root}`);
      }
    }
  }
  return all;
}

function refused(problem: string): ObdError {
  const remedy = 'give each its own socket and root';
  return new ObdError(
    ErrorCodes.InvalidArgument,
    `Cannot use the configuration: ${problem}; ${remedy}`,
  );
}

/** The part for containerd's own configuration. */
export const CONTAINERD_CONFIG_EXAMPLE = `\
[proxy_plugins.obd-ts]
type = "snapshot"
address = "/run/obd-ts/snapshotter.sock"
[proxy_plugins.obd-ts.exports]
root = "/var/lib/obd-ts/snapshotter"
enable_remote_snapshot_annotations = "true"
`;

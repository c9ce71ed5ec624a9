/** What can be set in obd-snapshotter's configuration file, and the examples that --help shows. */
import { z } from 'zod';
import { absolutePath, logLevel, registryTable } from '../config/config-values.js';

export const SNAPSHOTTER_CONFIG_PATH = '/etc/obd-ts/snapshotter.toml';

export const snapshotterConfig = z.strictObject({
  socket: absolutePath.default('/run/obd-ts/snapshotter.sock'),
  root: absolutePath
    .refine((path) => !/[:,\\\s"]/.test(path), 'must have no space, quote, ":", "," or "\\" in it')
    .default('/var/lib/obd-ts/snapshotter'),
  blockd_socket: absolutePath.default('/run/obd-ts/blockd.sock'),
  containerd_socket: absolutePath.default('/run/containerd/containerd.sock'),
  docker_config: absolutePath.optional(),
  log_level: logLevel.default('info'),
  registry: registryTable.prefault({}),
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
# Logins for registries. By default $DOCKER_CONFIG/config.json, and that is ~/.docker.
docker_config = "/root/.docker/config.json"
# error, warn, info or debug
log_level = "info"

[registry]
# Registries that speak plain HTTP, as host or host:port. Those on this machine do without being named.
plain_http = ["registry.lan:5000"]

[registry.hosts]
# Where the registry of a name really answers. containerd remembers names without their port.
"registry.lan" = "registry.lan:5000"
`;

/** What containerd must be told, in its own configuration. */
export const CONTAINERD_CONFIG_EXAMPLE = `\
[proxy_plugins.obd-ts]
type = "snapshot"
address = "/run/obd-ts/snapshotter.sock"
`;

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
${COMMON_KEYS_EXAMPLE}`;

/** What containerd must be told, in its own configuration. */
export const CONTAINERD_CONFIG_EXAMPLE = `\
[proxy_plugins.obd-ts]
type = "snapshot"
address = "/run/obd-ts/snapshotter.sock"
`;

/** What can be set in obd-blockd's configuration file, and the example that --help and the manual show. */
import * as z from 'zod';
import { TRANSPORT_NAMES } from '../blockdev/transport.js';
import {
  absolutePath,
  byteAmount,
  COMMON_KEYS_EXAMPLE,
  commonKeys,
  duration,
} from '../config/config-values.js';

export const BLOCKD_CONFIG_PATH = '/etc/obd-ts/blockd.toml';

const GIB = 2 ** 30;
/** Below, a single lost packet would be an I/O error; a day is more than a kernel's own timers take. */
const READ_DEADLINE_MS_MIN = 1_000;
const READ_DEADLINE_MS_MAX = 86_400_000;
const READ_DEADLINE_MS_DEFAULT = 600_000;

export const blockdConfig = z.strictObject({
  socket: absolutePath.default('/run/obd-ts/blockd.sock'),
  nbd_socket: absolutePath.default('/run/obd-ts/nbd.sock'),
  state_dir: absolutePath.default('/var/lib/obd-ts'),
  cache_size: byteAmount.default(20 * GIB),
  /** In ms. */
  read_deadline: duration(READ_DEADLINE_MS_MIN, READ_DEADLINE_MS_MAX).default(
    READ_DEADLINE_MS_DEFAULT,
  ),
  transport: z.enum(['auto', ...TRANSPORT_NAMES]).default('auto'),
  ...commonKeys,
});

export type BlockdConfig = z.infer<typeof blockdConfig>;

/** Every key with its default, or a likely value where the default is none. */
export const BLOCKD_CONFIG_EXAMPLE = `\
# Where the snapshotter and obdctl reach this daemon.
socket = "/run/obd-ts/blockd.sock"
# Where the disks are served by the NBD protocol: nbd+unix:///ID?socket=PATH
nbd_socket = "/run/obd-ts/nbd.sock"
# Cache and mount points of devices. Of one daemon alone.
state_dir = "/var/lib/obd-ts"
# How much of the registries' blobs is kept on this disk.
cache_size = "20 GiB"
# How long a read waits for a registry that does not give the bytes, before it is answered with EIO: ms, s, min or h.
read_deadline = "600 s"
# How devices reach the kernel: auto (the first of these that works here), ublk, tcmu, nbd or fuse.
transport = "auto"
${COMMON_KEYS_EXAMPLE}`;

/** The keys of obd-blockd's configuration file, and the example that --help and the manual show. */
import * as z from 'zod';
import { TRANSPORT_NAMES } from '../blockdev/transport.js';
import {
  absolutePath,
  byteAmount,
  COMMON_KEYS_EXAMPLE,
  commonKeys,
  duration,
} from '../config/config-values.js';
import { INDEX_BUDGET_BYTES_MAX } from '../io/index-budget.js';

export const BLOCKD_CONFIG_PATH = '/etc/obd-ts/blockd.toml';

const MIB = 2 ** 20;
/** Below the minimum a single lost packet would be an I/O error; a day is more than a kernel's own timers take. */
const READ_DEADLINE_MS_MIN = 1_000;
const READ_DEADLINE_MS_MAX = 86_400_000;
const READ_DEADLINE_MS_DEFAULT = 600_000;

/** A day of delay is as good as never. */
const FILL_DELAY_MS_MAX = 86_400_000;
const FILL_IDLE_MS_MAX = 3_600_000;

const fillTable = z.strictObject({
  enabled: z.boolean().default(false),
  /** In ms. */
  delay: duration(0, FILL_DELAY_MS_MAX).default(10_000),
  /** In ms. */
  idle: duration(0, FILL_IDLE_MS_MAX).default(500),
  /** Bytes per second. */
  rate: byteAmount.refine((bytes) => bytes > 0, 'must be more than 0').optional(),
});

const loadOrderTable = z.strictObject({
  use: z.boolean().default(true),
  publish: z.boolean().default(false),
});

export const blockdConfig = z.strictObject({
  socket: absolutePath.default('/run/obd-ts/blockd.sock'),
  nbd_socket: absolutePath.default('/run/obd-ts/nbd.sock'),
  state_dir: absolutePath.default('/var/lib/obd-ts'),
  cache_size: byteAmount.optional(),
  cache_reserve: byteAmount.optional(),
  /** In ms. */
  read_deadline: duration(READ_DEADLINE_MS_MIN, READ_DEADLINE_MS_MAX).default(
    READ_DEADLINE_MS_DEFAULT,
  ),
  index_memory: byteAmount
    .refine(
      (bytes) => bytes <= INDEX_BUDGET_BYTES_MAX,
      `must be at most ${INDEX_BUDGET_BYTES_MAX} bytes`,
    )
    .default(512 * MIB),
  transport: z.enum(['auto', ...TRANSPORT_NAMES]).default('auto'),
  fill: fillTable.prefault({}),
  load_order: loadOrderTable.prefault({}),
  ...commonKeys,
});

export type BlockdConfig = z.infer<typeof blockdConfig>;

/** Every key with its default, or a likely value where the default is none. */
export const BLOCKD_CONFIG_EXAMPLE = `\
# Where the snapshotter and obdctl reach this daemon.
socket = "/run/obd-ts/blockd.sock"
# Where the disks are served by the NBD protocol: nbd+unix:///ID?socket=PATH
nbd_socket = "/run/obd-ts/nbd.sock"
# Cache and mount points of devices. No other daemon may use it.
state_dir = "/var/lib/obd-ts"
# How much of the registries' blobs is kept on this disk. By default 20 GiB, or half of a disk that is smaller than 40 GiB.
cache_size = "20 GiB"
# How much of this disk the cache leaves free, also when others fill it. By default 5 % of the disk and at least 1 GiB, but
# no more than half of a small one.
cache_reserve = "10 GiB"
# How long a read waits for a registry that does not give the bytes, before it is answered with EIO: ms, s, min or h.
# A number without a unit counts seconds.
read_deadline = "600 s"
# Memory for the indexes of all open images together. An image that claims more than is left is refused.
index_memory = "512 MiB"
# How devices reach the kernel: auto (the first of these that works here), ublk, tcmu, nbd or fuse.
transport = "auto"
${COMMON_KEYS_EXAMPLE}
[fill]
# Whether the rest of each attached image is fetched in the background, so that its registry is no longer needed. A
# snapshot label of the image overrides it.
enabled = false
# How long after the attach.
delay = "10 s"
# How long no read may have waited for a registry before the next range is requested. With "0 s", only the moment counts.
idle = "500 ms"
# Bytes per second for all images together. By default there is no limit.
rate = "20 MiB"

[load_order]
# Whether what starts of an image are known to read is fetched ahead: hot blobs and load orders of its registry, and what earlier
# starts on this host have read.
use = true
# Whether what the first starts of an image read is published beside it in its registry, for other nodes. It takes a login that
# may push to the image's repository.
publish = false
`;

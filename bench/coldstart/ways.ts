/** The ways to start an image that are compared: which daemons each takes, which form of the image, and how it pulls. */
import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ctrPull, needsTransfer, startContainerd } from './containerd.js';
import { FAR_HOST } from './far-registry.js';
import { ROOT } from './folders.js';
import { COMPRESSIONS, OBD, PREDICTED } from './obd-images.js';
import type { Programs } from './peer-programs.js';
import { NYDUS_WAYS } from './peers/nydus.js';
import { SOCI_WAYS } from './peers/soci.js';
import { STARGZ } from './peers/stargz.js';
import type { Services } from './services.js';
import type { Way } from './way.js';

async function startObd(services: Services, moreOfBlockd = ''): Promise<void> {
  const registry = `[registry]\nplain_http = ["${FAR_HOST}"]\n`;
  const keys = {
    blockd: {
      socket: services.file('blockd.sock'),
      nbd_socket: services.file('nbd.sock'),
      state_dir: services.file('blockd'),
      transport: 'fuse',
    },
    snapshotter: {
      socket: services.file('snapshotter.sock'),
      root: services.file('snapshotter'),
      blockd_socket: services.file('blockd.sock'),
      containerd_socket: services.file('containerd.sock'),
    },
  };
  for (const [name, values] of Object.entries(keys)) {
    const lines = Object.entries(values).map(
      ([key, value]) => `${key} = ${JSON.stringify(value)}\n`,
    );
    await writeFile(
      services.file(`${name}.toml`),
      lines.join('') + registry + (name === 'blockd' ? moreOfBlockd : ''),
    );
    const program = join(ROOT, `dist/bin/obd-${name}.js`);
    const command = [process.execPath, program, '--config', services.file(`${name}.toml`)];
    await services.start(name, `test -S "$DIR/${name}.sock"`, ...command);
  }
  await startContainerd(services, { proxies: { 'obd-ts': 'snapshotter.sock' } });
}

/** containerd's erofs snapshotter needs a mkfs.erofs that takes tars, and EROFS one that leaves their order. */
function oldMkfs({ find }: Programs): string | undefined {
  const path = find('mkfs.erofs');
  if (path === undefined) return 'there is no mkfs.erofs';
  const { stdout, stderr } = spawnSync(path, ['--help'], { encoding: 'utf8' });
  return `${stdout}${stderr}`.includes('--sort=') ? undefined : `${path} has no --sort`;
}

/** As containerd's documentation has it. */
const EROFS = `
[plugins."io.containerd.service.v1.diff-service"]
default = ["erofs", "walking"]
[plugins."io.containerd.differ.v1.erofs"]
mkfs_options = ["-T0", "--mkfs-time", "--sort=none"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "erofs"
differ = "erofs"
`;

const RPULL: Way = {
  name: 'obd',
  title: 'obd-ts, obdctl rpull',
  kind: 'ours',
  variant: OBD,
  snapshotter: 'obd-ts',
  missing: () => undefined,
  start: (services) => startObd(services),
  pull: (services, reference) => [
    ...[process.execPath, join(ROOT, 'dist/bin/obdctl.js'), 'rpull', '--plain-http'],
    ...['--address', services.file('containerd.sock'), '--namespace', services.namespace],
    reference,
  ],
};

/** From the first moment on: with the default delay, most starts have ended before. */
const FILL = '[fill]\nenabled = true\ndelay = "0 s"\n';

/** Images whose starts read a part of them. */
const KNOWABLE = ['python', 'nodejs', 'jvm', 'pandas', 'nginx'];

/** A node publishes a start that has been quiet for ten seconds. */
const PUBLISH = '[load_order]\npublish = true\n';

/** What a node keeps of its starts. */
const LOAD_ORDERS = 'blockd/load-orders';

const KNOWN: Way = {
  name: 'obd-second',
  title: 'obd-ts, pulled by containerd, after another node has published',
  kind: 'ours',
  variant: OBD,
  snapshotter: 'obd-ts',
  images: KNOWABLE,
  quickImages: ['python'],
  publishers: 1,
  missing: needsTransfer,
  start: (services) => startObd(services, PUBLISH),
  pull: ctrPull('obd-ts'),
};

export const WAYS: readonly Way[] = [
  RPULL,
  {
    ...RPULL,
    name: 'obd-fill',
    title: 'obd-ts, obdctl rpull, with the background fill',
    onDemand: true,
    start: (services) => startObd(services, FILL),
  },
  {
    ...RPULL,
    name: 'obd-again',
    title: 'obd-ts, obdctl rpull, with the load order of an earlier start and an empty cache',
    onDemand: true,
    keeps: LOAD_ORDERS,
  },
  ...COMPRESSIONS.map((variant) => ({
    ...RPULL,
    name: variant.name,
    title: `obd-ts, obdctl rpull, ${variant.name}`,
    variant,
    onDemand: true,
  })),
  {
    name: 'obd-ctr',
    title: 'obd-ts, pulled by containerd',
    kind: 'ours',
    variant: OBD,
    snapshotter: 'obd-ts',
    missing: needsTransfer,
    start: (services) => startObd(services),
    pull: ctrPull('obd-ts'),
  },
  {
    name: 'obd-predicted',
    title: 'obd-ts, pulled by containerd, with the prediction that obdconv makes',
    kind: 'ours',
    variant: PREDICTED,
    snapshotter: 'obd-ts',
    images: KNOWABLE,
    quickImages: ['python'],
    judgedBy: LOAD_ORDERS,
    missing: needsTransfer,
    start: (services) => startObd(services),
    pull: ctrPull('obd-ts'),
  },
  KNOWN,
  {
    ...KNOWN,
    name: 'obd-third',
    title: 'obd-ts, pulled by containerd, after two other nodes have published',
    publishers: 2,
  },
  {
    ...KNOWN,
    name: 'obd-order',
    title: 'obd-ts, pulled by containerd, with the load order of another node and no hot blob',
    isOrderAlone: true,
  },
  {
    ...KNOWN,
    name: 'obd-wrong',
    title: 'obd-ts, pulled by containerd, after another node has published a start of other files',
    isMisled: true,
    onDemand: true,
  },
  {
    ...KNOWN,
    name: 'obd-wrong-order',
    title: 'obd-ts, pulled by containerd, with the load order of other files and no hot blob',
    isMisled: true,
    isOrderAlone: true,
    onDemand: true,
  },
  {
    name: 'overlayfs',
    title: 'full pull, overlayfs',
    kind: 'full pull',
    variant: undefined,
    snapshotter: 'overlayfs',
    missing: () => undefined,
    start: startContainerd,
    pull: ctrPull('overlayfs'),
  },
  {
    name: 'erofs',
    title: "full pull, containerd's erofs snapshotter",
    kind: 'full pull',
    variant: undefined,
    snapshotter: 'erofs',
    missing: (programs) =>
      programs.containerd.major < 2
        ? `containerd ${programs.containerd.version} has no erofs snapshotter`
        : oldMkfs(programs),
    start: async (services) => await startContainerd(services, { more: EROFS }),
    pull: ctrPull('erofs'),
  },
  ...NYDUS_WAYS,
  ...SOCI_WAYS,
  STARGZ,
];

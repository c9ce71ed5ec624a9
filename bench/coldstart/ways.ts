/** The ways to start an image that are compared: which daemons each takes, which form of the image, and how it pulls. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FAR_HOST } from './far-registry.js';
import { ROOT } from './folders.js';
import { COMPRESSIONS, OBD, type Variant } from './image-store.js';
import type { Programs } from './peer-programs.js';
import type { Services } from './services.js';

export interface Way {
  readonly name: string;
  readonly title: string;
  readonly kind: 'ours' | 'full pull' | 'peer';
  /** Undefined for the plain image. */
  readonly variant: Variant | undefined;
  readonly snapshotter: string;
  /** Runs only if `--ways` names it. */
  readonly onDemand?: boolean;
  /** The images that it runs; undefined for all. */
  readonly images?: readonly string[];
  /** Why it cannot run here; undefined if it can. */
  readonly missing: (programs: Programs) => string | undefined;
  /** Starts its daemons, containerd included. */
  readonly start: (services: Services) => Promise<void>;
  readonly pull: (services: Services, reference: string) => string[];
}

interface ContainerdPlugins {
  /** Of a snapshotter's socket, by the snapshotter's name. */
  readonly proxies?: Readonly<Record<string, string>>;
  readonly more?: string;
}

async function startContainerd(services: Services, plugins: ContainerdPlugins = {}): Promise<void> {
  const { proxies = {}, more = '' } = plugins;
  const proxy = Object.entries(proxies).map(
    ([name, socket]) => `
[proxy_plugins.${name}]
type = "snapshot"
address = "${services.file(socket)}"
[proxy_plugins.${name}.exports]
enable_remote_snapshot_annotations = "true"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "${name}"
`,
  );
  const config = `version = 2
root = "${services.file('containerd')}"
state = "${services.file('containerd-state')}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "${services.file('containerd.sock')}"
[plugins."io.containerd.internal.v1.opt"]
path = "${services.file('opt')}"
${proxy.join('')}${more}`;
  await writeFile(services.file('containerd.toml'), config);
  const ready = 'ctr_in "$DIR" version';
  await services.start(
    'containerd',
    ready,
    'containerd',
    '--config',
    services.file('containerd.toml'),
  );
}

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

const ctrPull =
  (snapshotter: string) =>
  (services: Services, reference: string): string[] =>
    services.ctr('images', 'pull', '--plain-http', '--snapshotter', snapshotter, reference);

const needsTransfer = ({ containerd }: Programs): string | undefined =>
  containerd.major >= 2 ? undefined : `containerd ${containerd.version} pulls without annotations`;

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

export const WAYS: readonly Way[] = [
  RPULL,
  {
    ...RPULL,
    name: 'obd-fill',
    title: 'obd-ts, obdctl rpull, with the background fill',
    onDemand: true,
    start: (services) => startObd(services, FILL),
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
        : programs.has('mkfs.erofs')
          ? undefined
          : 'there is no mkfs.erofs',
    start: async (services) => await startContainerd(services, { more: EROFS }),
    pull: ctrPull('erofs'),
  },
];

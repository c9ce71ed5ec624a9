/** A private containerd: its configuration, and pulls through it. */
import { writeFile } from 'node:fs/promises';
import type { Programs } from './peer-programs.js';
import type { Services } from './services.js';

interface ContainerdPlugins {
  /** Of a snapshotter's socket, by the snapshotter's name. */
  readonly proxies?: Readonly<Record<string, string>>;
  readonly more?: string;
}

export async function startContainerd(
  services: Services,
  plugins: ContainerdPlugins = {},
): Promise<void> {
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

export const ctrPull =
  (snapshotter: string) =>
  (services: Services, reference: string): string[] =>
    services.ctr('images', 'pull', '--plain-http', '--snapshotter', snapshotter, reference);

export const needsTransfer = ({ containerd }: Programs): string | undefined =>
  containerd.major >= 2 ? undefined : `containerd ${containerd.version} pulls without annotations`;

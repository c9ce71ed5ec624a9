/**
 * Checks containerd's effective configuration (`containerd config dump`), of containerd 1.6 to 2.x: version 2 and later, in
 * which CRI's settings have two places.
 *
 * They cover the settings of docs/install.md, and the failures without them, for each proxy plugin at a socket of
 * obd-snapshotter. The plugin's name does not matter.
 */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { connectContainerd } from '../containerd/connect.js';
import { type SnapshotterPlugin, snapshotterPlugins } from '../containerd/daemon-info.js';
import { messageOf } from '../errors.js';
import { hostPlatform } from '../oci/platform.js';
import { type CheckResult, result } from './check-result.js';

export type Table = Readonly<Record<string, unknown>>;

export interface ContainerdFacts {
  /** The effective configuration, or why it is not known. */
  readonly config: Table | string;
  /** "2.1.9"; undefined if not known. */
  readonly version: string | undefined;
  /** The plugins that containerd has loaded, or why they are not known. */
  readonly plugins: readonly SnapshotterPlugin[] | string;
  /** Path of the configuration file, for remedies. */
  readonly configPath: string;
  /** The socket of obd-snapshotter that the name obd-ts is for. */
  readonly snapshotterSocket: string;
  /** The store of each of its sockets, as snapshotter.toml has them. */
  readonly stores: ReadonlyMap<string, string>;
  /** Whether a snapshotter has its store in that directory; for a socket of unknown store. */
  readonly isStore: (root: string) => boolean;
}

const NAME = 'obd-ts';
const ANNOTATIONS = 'enable_remote_snapshot_annotations';
/** The first containerd that hands the image's reference to a proxy plugin. */
const ANNOTATIONS_VERSION = [2, 1] as const;
/** The default namespace: plugins are the same in all. */
const NAMESPACE = 'default';
const RESTART = 'and restart containerd';

/** @returns The reason, if containerd does not answer. */
export async function loadedPlugins(socket: string): Promise<SnapshotterPlugin[] | string> {
  const client = connectContainerd(socket, NAMESPACE);
  try {
    return await snapshotterPlugins(client);
  } catch (error) {
    return messageOf(error);
  } finally {
    client.close();
  }
}

export function checkContainerdConfig(facts: ContainerdFacts): CheckResult[] {
  const { config, configPath } = facts;
  const remedy = `add [proxy_plugins.${NAME}] to ${configPath} (docs/install.md) ${RESTART}`;
  if (typeof config === 'string') return [result('containerd plugin', 'warn', config, remedy)];
  const names = ourNames(facts, config);
  const each = names.map((name, i) => {
    const checks = [
      checkPlugin(facts, config, name, remedy),
      checkLoaded(facts, name),
      checkExports(facts, config, name),
      checkTransferService(config, name),
    ];
    return i === 0 ? checks : checks.map((one) => ({ ...one, what: `${one.what} (${name})` }));
  });
  return [...each.flat(), checkDoubles(config), checkCri(config, names)];
}

/** The proxy plugins that lead to obd-snapshotter, and "obd-ts" if it is configured or no other leads there. */
function ourNames({ snapshotterSocket, stores }: ContainerdFacts, config: Table): string[] {
  const sockets = new Set([snapshotterSocket, ...stores.keys()].map(socketPath));
  const plugins = Object.entries(tableAt(config, 'proxy_plugins') ?? {});
  const names = plugins
    .filter(([, plugin]) => isTable(plugin) && sockets.has(socketPath(plugin['address'])))
    .map(([name]) => name);
  const isConfigured = plugins.some(([name]) => name === NAME);
  const others = names.filter((name) => name !== NAME);
  return isConfigured || others.length === 0 ? [NAME, ...others] : others;
}

/** Checks that the configuration, with its imports, sends `name` to the snapshotter's socket. */
function checkPlugin(
  { snapshotterSocket, stores }: ContainerdFacts,
  config: Table,
  name: string,
  remedy: string,
): CheckResult {
  const what = 'containerd plugin';
  const plugin = tableAt(config, 'proxy_plugins', name);
  if (plugin === undefined) return result(what, 'missing', `no proxy plugin "${name}"`, remedy);
  const { type, address } = plugin;
  const rebase = plugin['capabilities'];
  if (Array.isArray(rebase) && rebase.includes('rebase')) {
    const line = `remove "rebase" from capabilities in [proxy_plugins.${name}] ${RESTART}`;
    return result(what, 'missing', 'capability "rebase", which it has not: pulls fail', line);
  }
  const sockets = name === NAME ? [snapshotterSocket] : [snapshotterSocket, ...stores.keys()];
  const socket = sockets.find((one) => socketPath(one) === socketPath(address));
  if (type === 'snapshot' && socket !== undefined) {
    return result(what, 'ok', `${name} at ${socket}`);
  }
  const found = `type ${JSON.stringify(type)}, address ${JSON.stringify(address)}`;
  const set = `set type "snapshot", address "${socket ?? snapshotterSocket}" in [proxy_plugins.${name}] ${RESTART}`;
  return result(what, 'missing', found, set);
}

/** containerd reads its configuration at its start only. */
function checkLoaded({ plugins }: ContainerdFacts, name: string): CheckResult {
  const what = 'containerd has loaded it';
  if (typeof plugins === 'string') return result(what, 'warn', plugins);
  const plugin = plugins.find((one) => one.name === name);
  const remedy = 'systemctl restart containerd';
  if (plugin === undefined) {
    const found = `the containerd that runs has no snapshotter "${name}"`;
    return result(what, 'missing', found, remedy);
  }
  if (plugin.problem === undefined) return result(what, 'ok', 'yes');
  return result(what, 'missing', plugin.problem, remedy);
}

/** containerd collects garbage for each name, which removes the snapshots of all other names at the same socket. */
function checkDoubles(config: Table): CheckResult {
  const what = 'plugin names';
  const names = new Map<string, string[]>();
  for (const [name, plugin] of Object.entries(tableAt(config, 'proxy_plugins') ?? {})) {
    if (!isTable(plugin) || plugin['type'] !== 'snapshot') continue;
    const address = socketPath(plugin['address']);
    names.set(address, [...(names.get(address) ?? []), name]);
  }
  const double = [...names].find(([, each]) => each.length > 1);
  if (double === undefined) return result(what, 'ok', 'one socket for each');
  const [address, each] = double;
  const found = `${each.join(' and ')} are one socket, ${address}: they remove each other's snapshots`;
  const [name = ''] = each.filter((one) => one !== NAME);
  const remedy = `give ${name} its own socket and store: [plugins.${name}] in snapshotter.toml`;
  return result(what, 'missing', found, remedy);
}

function checkExports(
  { version, configPath, stores, isStore }: ContainerdFacts,
  config: Table,
  name: string,
): CheckResult {
  const what = 'plugin exports';
  if (version === undefined || !isAtLeast(version, ANNOTATIONS_VERSION)) {
    return result(what, 'info', `not used before containerd ${ANNOTATIONS_VERSION.join('.')}`);
  }
  const exports = tableAt(config, 'proxy_plugins', name, 'exports');
  const socket = socketPath(tableAt(config, 'proxy_plugins', name)?.['address']);
  const store = [...stores].find(([each]) => socketPath(each) === socket)?.[1];
  const root = typeof exports?.['root'] === 'string' ? exports['root'] : '';
  const problems = [
    ...(exports?.[ANNOTATIONS] === 'true'
      ? []
      : [`no ${ANNOTATIONS} = "true": images of registries at a port may not be lazy`]),
    ...(root.startsWith('/') ? [] : ['no root: kubelet measures a directory that does not exist']),
    ...(root.startsWith('/') && !(store === undefined ? isStore(root) : isSamePath(root, store))
      ? [
          `root "${root}" is not the snapshotter's: it has to be ${store ?? 'that'} of snapshotter.toml`,
        ]
      : []),
  ];
  if (problems.length === 0) return result(what, 'ok', `root ${root}, references sent`);
  const remedy = `set both in [proxy_plugins.${name}.exports] in ${configPath} ${RESTART}`;
  return result(what, 'warn', problems.join('; '), remedy);
}

/**
 * The transfer service unpacks only for the snapshotters of `unpack_config`; nerdctl 2.3, ctr 2 and CRI of containerd 2
 * pull through it. A configured list replaces containerd's built-in entry for overlayfs.
 */
function checkTransferService(config: Table, name: string): CheckResult {
  const what = 'transfer service';
  const transfer = tableAt(config, 'plugins', 'io.containerd.transfer.v1.local');
  if (transfer === undefined) return result(what, 'info', 'this containerd has none configured');
  const entries = Array.isArray(transfer['unpack_config']) ? transfer['unpack_config'] : [];
  const tables = entries.filter(isTable);
  const told = new Set(
    tables.filter((each) => isForHost(each['platform'])).map((each) => each['snapshotter']),
  );
  const foreign = tables.find((each) => each['snapshotter'] === name);
  if (!told.has(name) && foreign !== undefined) {
    const found = `unpack_config of ${name} is for ${foreign['platform']}, not for this host`;
    return result(what, 'warn', found, `set its platform to "linux" ${RESTART}`);
  }
  if (!told.has(name)) {
    const remedy = `for nerdctl 2.3 and ctr 2, add an unpack_config for "overlayfs" and one for "${name}"`;
    return result(what, 'warn', `not told of ${name}`, remedy);
  }
  if (told.has('overlayfs')) return result(what, 'ok', `unpacks for overlayfs and ${name}`);
  const found =
    "unpack_config lacks overlayfs: pulls into containerd's default snapshotter fail on this host";
  const remedy = `add an unpack_config with snapshotter = "overlayfs" ${RESTART}`;
  return result(what, 'warn', found, remedy);
}

/** Kubernetes and crictl. CRI sends an image's reference only with annotations, or through the transfer service. */
function checkCri(config: Table, names: readonly string[]): CheckResult {
  const what = 'CRI';
  const images =
    tableAt(config, 'plugins', 'io.containerd.cri.v1.images') ??
    tableAt(config, 'plugins', 'io.containerd.grpc.v1.cri', 'containerd');
  const name = names.find((one) => one === images?.['snapshotter']);
  if (images === undefined || name === undefined) {
    const found = `pulls into ${JSON.stringify(images?.['snapshotter'] ?? 'none')}`;
    return result(what, 'info', found, `for Kubernetes, set its snapshotter to "${names[0]}"`);
  }
  const isNew = Object.hasOwn(images, 'use_local_image_pull');
  const locally = ['use_local_image_pull', 'image_pull_with_sync_fs'].filter((key) => images[key]);
  if (images['disable_snapshot_annotations'] === false || (isNew && locally.length === 0)) {
    return result(what, 'ok', `pulls into ${name}, references sent`);
  }
  const why = isNew ? `pulls without the transfer service (${locally.join(', ')}), and ` : '';
  const found = `${why}sends no references: images of registries at a port may not be lazy`;
  return result(what, 'warn', found, `set disable_snapshot_annotations = false ${RESTART}`);
}

export function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [foundMajor = 0, foundMinor = 0] = version.split('.').map(Number);
  return foundMajor > major || (foundMajor === major && foundMinor >= minor);
}

function isSamePath(a: string, b: string): boolean {
  return socketPath(a) === socketPath(b);
}

/** One spelling for each socket: resolves symbolic links, of its directory if it does not exist. */
function socketPath(address: unknown): string {
  const path = resolve(String(address).replace(/^unix:\/\//, ''));
  for (const [above, below] of [[path], [dirname(path), basename(path)]] as const) {
    try {
      return join(realpathSync(above), below ?? '');
    } catch {
      // It does not exist.
    }
  }
  return path.replace(/^\/var\/run\//, '/run/');
}

/** "linux", "linux/amd64" or "linux/arm64/v8", as containerd writes platforms; an empty one means this host's. */
function isForHost(platform: unknown): boolean {
  if (typeof platform !== 'string' || platform === '') return true;
  const names: Record<string, string> = { x86_64: 'amd64', 'x86-64': 'amd64', aarch64: 'arm64' };
  const [os, architecture] = platform.toLowerCase().split('/');
  if (architecture === undefined) return os === 'linux' || isArchitecture(names[os!] ?? os!);
  return os === 'linux' && isArchitecture(names[architecture] ?? architecture);
}

function isArchitecture(name: string): boolean {
  return name === hostPlatform().architecture;
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tableAt(table: Table | undefined, ...path: readonly string[]): Table | undefined {
  let at: unknown = table;
  for (const key of path) at = isTable(at) ? at[key] : undefined;
  return isTable(at) ? at : undefined;
}

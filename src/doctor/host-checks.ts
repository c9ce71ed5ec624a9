/**
 * Checks the host for everything that obd-ts needs, each check with its remedy.
 *
 * A check changes nothing. `missing` means that containers cannot be started from lazily loaded images here;
 * `warn` that something is wrong or unknown; `info` is good to know.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { access, constants, readFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { release } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'smol-toml';
import type { TransportState } from '../blockd/transport-choice.js';
import { byteText } from '../byte-text.js';
import { DiskSpace } from '../cache/disk-space.js';
import { readConfigFile } from '../config/config-file.js';
import { messageOf } from '../errors.js';
import { isNodeSupported, NODE_REMEDY } from '../node-version.js';
import {
  pluginsOf,
  SNAPSHOTTER_CONFIG_PATH,
  snapshotterConfig,
} from '../snapshotter/snapshotter-config.js';
import { type CheckResult, result } from './check-result.js';
import {
  checkContainerdConfig,
  isAtLeast,
  loadedPlugins,
  type Table,
} from './containerd-checks.js';

/** Paths and sockets to check; the defaults are those of the daemons and of containerd. */
export interface HostPaths {
  readonly containerdSocket: string;
  readonly containerdConfig: string;
  readonly blockdSocket: string;
  readonly snapshotterSocket: string;
  /** obd-snapshotter's configuration; undefined for the default one, which may be missing. */
  readonly snapshotterConfig: string | undefined;
  readonly stateDirectory: string;
}

const CONTAINERD_WANTED = [1, 6] as const;
const CONNECT_MS_MAX = 2000;
const PROGRAM_MS_MAX = 5000;
/** Characters of another program's message. */
const SAID_MAX = 500;
/** `containerd config dump` prints some 10 KiB. */
const OUTPUT_BYTES_MAX = 4 << 20;

/** Runs every check; none of them throws. */
export async function checkHost(paths: HostPaths): Promise<CheckResult[]> {
  const containerd = checkContainerd(paths);
  const transports = checkTransports(paths.stateDirectory);
  const others = await Promise.all([
    checkRoot(),
    checkNode(),
    checkNativeCode(),
    checkFileSystem('overlay'),
    checkFileSystem('ext4'),
    checkProgram('runc', 'apt-get install runc'),
    checkContainerdVersion(),
    checkSocket('containerd', paths.containerdSocket, 'systemctl start containerd'),
    checkSocket('obd-blockd', paths.blockdSocket, 'systemctl start obd-blockd'),
    checkSocket('obd-snapshotter', paths.snapshotterSocket, 'systemctl start obd-snapshotter'),
    checkLayers(paths.snapshotterSocket),
    checkSpace(paths.stateDirectory),
  ]);
  return [...others, ...(await containerd), ...(await transports)];
}

async function checkContainerd(paths: HostPaths): Promise<CheckResult[]> {
  const [config, version, plugins, stores] = await Promise.all([
    containerdConfig(paths.containerdConfig),
    containerdVersion(),
    loadedPlugins(paths.containerdSocket),
    snapshotterStores(paths.snapshotterConfig),
  ]);
  const { containerdConfig: configPath, snapshotterSocket } = paths;
  const isStore = (root: string) => existsSync(join(root, 'snapshots'));
  const checks = checkContainerdConfig({
    config,
    version,
    plugins,
    configPath,
    snapshotterSocket,
    stores: typeof stores === 'string' ? new Map<string, string>() : stores,
    isStore,
  });
  if (typeof stores !== 'string') return checks;
  return [result('snapshotter.toml', 'missing', stores, 'mend the file'), ...checks];
}

/** The store of each socket that obd-snapshotter is configured with, or why they are not known. */
async function snapshotterStores(path: string | undefined): Promise<Map<string, string> | string> {
  try {
    const options = { mayBeMissing: path === undefined };
    const config = await readConfigFile(
      path ?? SNAPSHOTTER_CONFIG_PATH,
      snapshotterConfig,
      options,
    );
    return new Map([...pluginsOf(config).values()].map(({ socket, root }) => [socket, root]));
  } catch (error) {
    return messageOf(error);
  }
}

async function containerdVersion(): Promise<string | undefined> {
  const output = await outputOf('containerd', ['--version']).catch(() => undefined);
  return /\b[0-9]+\.[0-9]+\.[0-9]+/.exec(output ?? '')?.[0];
}

async function checkRoot(): Promise<CheckResult> {
  const uid = process.geteuid?.() ?? -1;
  const state = uid === 0 ? 'ok' : 'warn';
  const remedy = 'run as root: the daemons need it, and so do some of these checks';
  return result('user', state, `uid ${uid}`, remedy);
}

async function checkNode(): Promise<CheckResult> {
  const { node } = process.versions;
  return result('node', isNodeSupported(node) ? 'ok' : 'missing', node, NODE_REMEDY);
}

async function checkNativeCode(): Promise<CheckResult> {
  const what = 'native add-ons';
  const problem = await import('../zfile/block-codec.js').then(() => undefined, messageOf);
  return problem === undefined
    ? result(what, 'ok', 'loaded')
    : result(what, 'missing', problem, 'npm run build');
}

async function checkProgram(name: string, remedy: string): Promise<CheckResult> {
  const path = await findProgram(name);
  return result(name, path === undefined ? 'missing' : 'ok', path ?? 'not in PATH', remedy);
}

/** Checks for a file system in the kernel, or in a module that mount() will load. */
async function checkFileSystem(name: string): Promise<CheckResult> {
  const known = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  if (new RegExp(`\\b${name}$`, 'm').test(known)) return result(name, 'ok', 'in this kernel');
  if (await hasModule(name)) return result(name, 'ok', 'a module, loaded when needed');
  return result(name, 'missing', `not in kernel ${release()}`, 'use a kernel that has it');
}

async function checkContainerdVersion(): Promise<CheckResult> {
  const version = await containerdVersion();
  const wanted = CONTAINERD_WANTED.join('.');
  if (version === undefined) {
    return result('containerd', 'missing', 'not in PATH', 'apt-get install containerd');
  }
  const state = isAtLeast(version, CONTAINERD_WANTED) ? 'ok' : 'missing';
  return result('containerd', state, version, `install containerd ${wanted} or newer`);
}

async function checkSocket(what: string, path: string, remedy: string): Promise<CheckResult> {
  const problem = await new Promise<string | undefined>((resolve) => {
    const socket = createConnection(path);
    const settle = (value: string | undefined) => {
      socket.destroy();
      resolve(value);
    };
    socket.setTimeout(CONNECT_MS_MAX, () => settle('no answer'));
    socket.once('connect', () => settle(undefined));
    socket.once('error', (error) => settle(messageOf(error)));
  });
  const name = `${what} socket`;
  return problem === undefined
    ? result(name, 'ok', path)
    : result(name, 'missing', problem, remedy);
}

/** Checks for layers that an earlier version recorded without proof of their identity. */
async function checkLayers(snapshotterSocket: string): Promise<CheckResult> {
  const what = 'layers';
  try {
    const { refusedLayers } = await import('./refused-layers.js');
    const refused = await refusedLayers(snapshotterSocket);
    if (refused.length === 0) return result(what, 'ok', 'all are proved');
    const remedy = 'remove all images that have them, and pull them again';
    return result(what, 'warn', refused.join('. '), remedy);
  } catch (error) {
    return result(what, 'info', `not known: ${messageOf(error)}`);
  }
}

/** Compares free space with the default of `cache_reserve`: below it the cache evicts chunks and stores nothing. */
async function checkSpace(directory: string): Promise<CheckResult> {
  const what = 'disk space';
  let at = directory;
  for (;;) {
    const disk = await DiskSpace.of(at, undefined).catch(() => undefined);
    if (disk !== undefined) {
      const missing = await disk.missing(0);
      const free = byteText(disk.reserveBytes - missing);
      const reserve = byteText(disk.reserveBytes);
      if (missing < 0) return result(what, 'ok', `${free} free for ${directory}`);
      const found = `${free} free for ${directory}; the cache leaves ${reserve} free, so it stores nothing`;
      const remedy = `free more than ${byteText(missing)} there, or lower cache_reserve`;
      return result(what, 'warn', found, remedy);
    }
    if (at === dirname(at)) return result(what, 'warn', `cannot look at ${directory}`);
    at = dirname(at);
  }
}

/** Checks for a way to make block devices, and names the one that obd-blockd takes if no other is configured. */
async function checkTransports(stateDirectory: string): Promise<CheckResult[]> {
  let states: TransportState[];
  try {
    const { makeTransports } = await import('../blockdev/transports.js');
    const { TransportChoice } = await import('../blockd/transport-choice.js');
    // Attaches no device and exports no disk: it only looks.
    const transports = makeTransports('/nonexistent', join(stateDirectory, 'devices'));
    states = await new TransportChoice('auto', transports).states();
  } catch (error) {
    return [result('transports', 'missing', messageOf(error), 'npm run build')];
  }
  const works = states.some(({ missing }) => missing === '');
  return states.map(({ name, missing, chosen }) => {
    const what = `transport ${name}`;
    if (missing !== '') return result(what, works ? 'info' : 'missing', 'not usable', missing);
    return result(what, 'ok', chosen ? 'usable; what transport = "auto" takes' : 'usable');
  });
}

async function hasModule(name: string): Promise<boolean> {
  const loaded = await access(`/sys/module/${name}`).then(
    () => true,
    () => false,
  );
  if (loaded) return true;
  for (const list of ['modules.dep', 'modules.builtin']) {
    const text = await readFile(join('/lib/modules', release(), list), 'utf8').catch(() => '');
    if (new RegExp(`/${name.replaceAll('_', '[_-]')}\\.ko`).test(text)) return true;
  }
  return false;
}

async function findProgram(name: string): Promise<string | undefined> {
  for (const directory of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(directory, name);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

/** @throws system errors, and Error with `stderr` if the program fails, is too slow or prints too much. */
async function outputOf(program: string, args: readonly string[]): Promise<string> {
  const limits = { timeout: PROGRAM_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX };
  return (await promisify(execFile)(program, args, limits)).stdout;
}

/** containerd's effective configuration, or why it is not known. */
async function containerdConfig(path: string): Promise<Table | string> {
  let text: string;
  try {
    text = await outputOf('containerd', ['--config', path, 'config', 'dump']);
  } catch (error) {
    const said = String(Object(error).stderr ?? '')
      .trim()
      .split('\n')
      .at(-1)
      ?.slice(0, SAID_MAX);
    return `"containerd --config ${path} config dump" fails: ${said || messageOf(error)}`;
  }
  try {
    return parse(text);
  } catch (error) {
    return `cannot parse ${path}: ${messageOf(error)}`;
  }
}

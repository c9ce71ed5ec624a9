/**
 * What obd-ts needs of a host, one check after the other, each with the way to get it.
 *
 * A check looks and changes nothing. `missing` means that containers cannot be started from lazily loaded images here;
 * `warn` that something is not as it should be, or cannot be told; `info` is good to know.
 */
import { execFile } from 'node:child_process';
import { access, constants, readFile, statfs } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { release } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { parse } from 'smol-toml';
import type { TransportState } from '../blockd/transport-choice.js';
import { messageOf } from '../errors.js';
import { byteText } from './byte-text.js';

type CheckState = 'ok' | 'warn' | 'missing' | 'info';

export interface CheckResult {
  readonly what: string;
  readonly state: CheckState;
  readonly found: string;
  /** What to do about it; empty where there is nothing to do. */
  readonly remedy: string;
}

/** Where to look; the defaults are those of the daemons and of containerd. */
export interface HostPaths {
  readonly containerdSocket: string;
  readonly containerdConfig: string;
  readonly blockdSocket: string;
  readonly snapshotterSocket: string;
  readonly stateDirectory: string;
}

const NODE_WANTED = [22, 20] as const;
const CONTAINERD_WANTED = [1, 6] as const;
/** Less than this and a few images fill the cache. */
const FREE_BYTES_WANTED = 2 * 2 ** 30;
const CONNECT_MS_MAX = 2000;
const PROGRAM_MS_MAX = 5000;
/** `containerd config dump` prints some 10 KiB. */
const OUTPUT_BYTES_MAX = 4 << 20;

/** Runs every check; none of them throws. */
export async function checkHost(paths: HostPaths): Promise<CheckResult[]> {
  const config = containerdConfig(paths.containerdConfig);
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
    checkProxyPlugin(paths, await config),
    checkTransferService(await config),
    checkSocket('obd-blockd', paths.blockdSocket, 'systemctl start obd-blockd'),
    checkSocket('obd-snapshotter', paths.snapshotterSocket, 'systemctl start obd-snapshotter'),
    checkLayers(paths.snapshotterSocket),
    checkSpace(paths.stateDirectory),
  ]);
  return [...others, ...(await transports)];
}

function result(what: string, state: CheckState, found: string, remedy = ''): CheckResult {
  return { what, state, found, remedy: state === 'ok' ? '' : remedy };
}

async function checkRoot(): Promise<CheckResult> {
  const uid = process.geteuid?.() ?? -1;
  const state = uid === 0 ? 'ok' : 'warn';
  const remedy = 'run as root: the daemons need it, and so do some of these checks';
  return result('user', state, `uid ${uid}`, remedy);
}

async function checkNode(): Promise<CheckResult> {
  const { node } = process.versions;
  const state = isAtLeast(node, NODE_WANTED) ? 'ok' : 'missing';
  return result('node', state, node, `install Node ${NODE_WANTED.join('.')} or newer`);
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

/** A file system that the kernel has, or has a module for that mounting will load. */
async function checkFileSystem(name: string): Promise<CheckResult> {
  const known = await readFile('/proc/filesystems', 'utf8').catch(() => '');
  if (new RegExp(`\\b${name}$`, 'm').test(known)) return result(name, 'ok', 'in this kernel');
  if (await hasModule(name)) return result(name, 'ok', 'a module, loaded when needed');
  return result(name, 'missing', `not in kernel ${release()}`, 'use a kernel that has it');
}

async function checkContainerdVersion(): Promise<CheckResult> {
  const output = await outputOf('containerd', ['--version']);
  const version = /\b[0-9]+\.[0-9]+\.[0-9]+/.exec(output ?? '')?.[0];
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

/** That containerd's configuration, with all that it imports, sends "obd-ts" to the snapshotter's socket. */
function checkProxyPlugin(paths: HostPaths, config: Table | string): CheckResult {
  const what = 'containerd plugin';
  const remedy = `add [proxy_plugins.obd-ts] to ${paths.containerdConfig} (docs/install.md) and restart containerd`;
  if (typeof config === 'string') return result(what, 'warn', config, remedy);
  const plugin = tableAt(tableAt(config, 'proxy_plugins'), 'obd-ts');
  if (plugin === undefined) return result(what, 'missing', 'no proxy plugin "obd-ts"', remedy);
  const { type, address } = plugin;
  if (type !== 'snapshot' || address !== paths.snapshotterSocket) {
    const found = `type ${JSON.stringify(type)}, address ${JSON.stringify(address)}`;
    return result(
      what,
      'missing',
      found,
      `set type "snapshot", address "${paths.snapshotterSocket}"`,
    );
  }
  return result(what, 'ok', `obd-ts at ${paths.snapshotterSocket}`);
}

/** The transfer service, which nerdctl 2.3 and ctr 2 pull through, unpacks only for snapshotters it was told of. */
function checkTransferService(config: Table | string): CheckResult {
  const what = 'transfer service';
  if (typeof config === 'string') return result(what, 'info', config);
  const transfer = tableAt(tableAt(config, 'plugins'), 'io.containerd.transfer.v1.local');
  if (transfer === undefined) return result(what, 'info', 'this containerd has none configured');
  const entries = Array.isArray(transfer['unpack_config']) ? transfer['unpack_config'] : [];
  const told = entries.some((entry) => isTable(entry) && entry['snapshotter'] === 'obd-ts');
  const remedy = 'for nerdctl 2.3 and ctr 2, add an unpack_config with snapshotter = "obd-ts"';
  return result(
    what,
    told ? 'ok' : 'warn',
    told ? 'unpacks for obd-ts' : 'not told of obd-ts',
    remedy,
  );
}

/** Layers that an earlier version recorded, and that are not proved to be what they are called. */
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

async function checkSpace(directory: string): Promise<CheckResult> {
  const what = 'disk space';
  let at = directory;
  for (;;) {
    const stat = await statfs(at).catch(() => undefined);
    if (stat !== undefined) {
      const free = stat.bavail * stat.bsize;
      const state = free >= FREE_BYTES_WANTED ? 'ok' : 'warn';
      const remedy = `free ${byteText(FREE_BYTES_WANTED)} there, or move the cache`;
      return result(what, state, `${byteText(free)} free for ${directory}`, remedy);
    }
    if (at === dirname(at)) return result(what, 'warn', `cannot look at ${directory}`);
    at = dirname(at);
  }
}

/** Whether there is a way to make block devices, and which one obd-blockd takes if nothing else is configured. */
async function checkTransports(stateDirectory: string): Promise<CheckResult[]> {
  let states: TransportState[];
  try {
    const { makeTransports } = await import('../blockdev/transports.js');
    const { TransportChoice } = await import('../blockd/transport-choice.js');
    // Nothing is exported or attached, only looked for.
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

/** What the program prints, or undefined if it is absent, fails, is too slow or prints too much. */
async function outputOf(program: string, args: readonly string[]): Promise<string | undefined> {
  const limits = { timeout: PROGRAM_MS_MAX, maxBuffer: OUTPUT_BYTES_MAX };
  return await promisify(execFile)(program, args, limits).then(
    ({ stdout }) => stdout,
    () => undefined,
  );
}

type Table = Readonly<Record<string, unknown>>;

/** containerd's configuration as it takes effect, or why it cannot be had. */
async function containerdConfig(path: string): Promise<Table | string> {
  const text = await outputOf('containerd', ['--config', path, 'config', 'dump']);
  if (text === undefined) return `"containerd --config ${path} config dump" fails`;
  try {
    return parse(text);
  } catch (error) {
    return `cannot parse ${path}: ${messageOf(error)}`;
  }
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function tableAt(table: Table | undefined, key: string): Table | undefined {
  const value = table?.[key];
  return isTable(value) ? value : undefined;
}

function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [foundMajor = 0, foundMinor = 0] = version.split('.').map(Number);
  return foundMajor > major || (foundMajor === major && foundMinor >= minor);
}

/**
 * containerd's host configuration, as far as pulling needs it: `HOSTS_DIR/HOST/hosts.toml`.
 *
 * It reads `server` and the `host` tables in the order of the file, each with `capabilities`, `ca`, `skip_verify`,
 * `header` and `override_path`, and ignores other keys. The directory of a host is `HOST`, `HOST:PORT` or `HOST_PORT_`,
 * and `_default` serves every host that has none. A directory without hosts.toml may hold certificates as `*.crt`.
 * Source: containerd, docs/hosts.md and core/remotes/docker/config/hosts.go.
 *
 * A file is read at the first look-up of its host, and again after it has changed; changes are checked at most every
 * CHECK_MS. If a new or changed file cannot be read, the previous settings stay in force, also if there were none.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { parse } from 'smol-toml';
import * as z from 'zod';
import { ErrorCodes, messageOf, ObdError, systemCode } from '../errors.js';
import { isHost } from '../oci/reference.js';
import type { Endpoint, TlsSettings } from './endpoint.js';
import { pemCertificates } from './pem-certificates.js';

/** The default or conventional directories of containerd, CRI and nerdctl. */
export const HOSTS_DIRECTORY = '/etc/containerd/certs.d';

const CHECK_MS = 1_000;
/** Real files have a few hundred bytes; a bundle of authorities has 250 KiB. */
const FILE_BYTES_MAX = 1 << 20;
/** Limit of mirrors: each may have to time out before a request fails. */
const MIRRORS_MAX = 16;
const DIRECTORIES_MAX = 4096;
/** More than the hosts in use at once; files of further hosts are read again. */
const REMEMBERED_MAX = 256;

type HostSettings = Pick<Endpoint, 'actions' | 'tls' | 'headers'>;

interface MirrorSettings extends HostSettings {
  readonly origin: string;
  readonly prefix: string;
}

export interface HostsFile {
  readonly mirrors: readonly MirrorSettings[];
  /** The registry's own address; undefined if the file does not say. */
  readonly server: { readonly origin: string; readonly prefix: string } | undefined;
  readonly serverSettings: HostSettings;
}

interface Remembered {
  readonly path: string;
  readonly stamp: string;
  readonly file: HostsFile | undefined;
  checkAgainMs: number;
}

const texts = z.union([z.string().transform((text) => [text]), z.array(z.string())]);
const hostTable = z.looseObject({
  capabilities: z.array(z.string()).optional(),
  ca: texts.optional(),
  skip_verify: z.boolean().optional(),
  header: z.record(z.string(), texts).optional(),
  override_path: z.boolean().optional(),
});
const hostsToml = hostTable.extend({
  server: z.string().optional(),
  host: z
    .record(z.string(), hostTable)
    .refine((hosts) => Object.keys(hosts).length <= MIRRORS_MAX, `at most ${MIRRORS_MAX} hosts`)
    .optional(),
});
type HostTable = z.infer<typeof hostTable>;

export class HostsDirectory {
  readonly #path: string;
  readonly #remembered = new Map<string, Remembered>();

  /** @param path - May be missing, or be created later. */
  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Returns the configuration of a host; undefined if it has none.
   *
   * @param host - `host` or `host:port`, as in a reference.
   * @throws {ObdError} `InvalidArgument` for a file that cannot be used, `Io`; neither once a look-up of this host has
   *   succeeded.
   */
  lookUp(host: string): HostsFile | undefined {
    const before = this.#remembered.get(host);
    const nowMs = performance.now();
    if (before !== undefined && nowMs < before.checkAgainMs) return before.file;
    const checkAgainMs = nowMs + CHECK_MS;
    try {
      const found = this.#read(host, before);
      // The first key of the map is the host that was read or checked longest ago.
      this.#remembered.delete(host);
      const [oldest] = this.#remembered.keys();
      if (oldest !== undefined && this.#remembered.size >= REMEMBERED_MAX) {
        this.#remembered.delete(oldest);
      }
      this.#remembered.set(host, { ...found, checkAgainMs });
      return found.file;
    } catch (thrown) {
      const error = systemCode(thrown) === undefined ? thrown : unreadable(this.#path, thrown);
      if (before === undefined || !(error instanceof ObdError)) throw error;
      before.checkAgainMs = checkAgainMs;
      return before.file;
    }
  }

  #read(host: string, before: Remembered | undefined): Omit<Remembered, 'checkAgainMs'> {
    const directory = this.#directoryOf(host);
    const path = directory === undefined ? '' : join(directory, 'hosts.toml');
    const stamp = `${stampOf(path)} ${directory === undefined ? '' : stampOf(directory)}`;
    if (before?.path === path && before.stamp === stamp) return before;
    return { path, stamp, file: directory === undefined ? undefined : readHosts(directory) };
  }

  /** Returns the hosts with a port (`name:port`) that have a directory; none if the directory cannot be read. */
  portsOf(name: string): string[] {
    const hosts = listed(this.#path).map((entry) => entry.replace(/_([0-9]{1,5})_$/, ':$1'));
    return hosts.filter((host) => host.startsWith(`${name}:`) && isHost(host));
  }

  #directoryOf(host: string): string | undefined {
    if (!isHost(host)) return undefined;
    const names = [host.replace(/:([0-9]+)$/, '_$1_'), host, '_default'];
    return names.map((name) => join(this.#path, name)).find((path) => stampOf(path) !== '');
  }
}

/** Changes when the file does; "" if there is no file. */
function stampOf(path: string): string {
  const stat = path === '' ? undefined : statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? '' : `${stat.ino} ${stat.size} ${stat.mtimeMs}`;
}

function listed(path: string): string[] {
  try {
    return readdirSync(path).slice(0, DIRECTORIES_MAX);
  } catch {
    return [];
  }
}

function readHosts(directory: string): HostsFile | undefined {
  const path = join(directory, 'hosts.toml');
  const text = readText(path);
  if (text === undefined) {
    const found = listed(directory).filter((name) => name.endsWith('.crt'));
    const ca = found.flatMap((name) => {
      const file = join(directory, name);
      const pem = readText(file);
      return pem === undefined ? [] : certificatesOf(file, pem, 'it');
    });
    if (ca.length === 0) return undefined;
    const tls = { ca, skipVerify: false };
    return { mirrors: [], server: undefined, serverSettings: { ...ALL_ACTIONS, tls, headers: {} } };
  }
  const config = parseToml(path, text);
  const { server, host: hosts = {} } = config;
  return {
    mirrors: Object.entries(hosts).map(([url, table]) => ({
      ...addressIn(path, url, table.override_path === true),
      ...settingsOf(path, directory, table),
    })),
    server:
      server === undefined || server === ''
        ? undefined
        : addressIn(path, server, config.override_path === true),
    serverSettings: settingsOf(path, directory, config),
  };
}

/** `resolve` and `referrers` concern containerd alone. */
const CAPABILITIES: readonly string[] = ['pull', 'resolve', 'push', 'referrers'];
/** RFC 9110 5.6.2 and 5.5. */
const HEADER_NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
/** The HTTP client sets them. */
const CONNECTION_HEADERS: readonly string[] = [
  'connection',
  'content-length',
  'expect',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
];
const ALL_ACTIONS = { actions: ['pull', 'push'] } as const;

function settingsOf(path: string, directory: string, table: HostTable): HostSettings {
  const { capabilities = [], ca: files = [], skip_verify: skipVerify = false } = table;
  // As in containerd, case does not matter, and a name that it does not know is an error.
  const names = capabilities.map((name) => name.toLowerCase());
  const unknown = capabilities.find((_, i) => !CAPABILITIES.includes(names[i] ?? ''));
  if (unknown !== undefined) {
    const known = CAPABILITIES.join(', ');
    throw refused(path, `"capabilities": ${quoted(unknown)} is none of ${known}`);
  }
  const actions =
    names.length === 0
      ? ALL_ACTIONS.actions
      : ALL_ACTIONS.actions.filter((action) => names.includes(action));
  const ca = files.flatMap((file) => {
    const found = readText(isAbsolute(file) ? file : join(directory, file));
    if (found === undefined) throw refused(path, `"ca": there is no file "${file}"`);
    return certificatesOf(path, found, `"ca": "${file}"`);
  });
  const headers = Object.entries(table.header ?? {}).map(([name, values]) => {
    const value = values.join(', ');
    if (!HEADER_NAME.test(name) || CONNECTION_HEADERS.includes(name.toLowerCase())) {
      throw refused(path, `"header": ${quoted(name)} is not the name of a header that may be set`);
    }
    // The value may be a secret.
    if (!HEADER_VALUE.test(value)) {
      throw refused(
        path,
        `"header": the value of ${quoted(name)} has characters that no header has`,
      );
    }
    return [name.toLowerCase(), value];
  });
  const tls: TlsSettings | undefined = ca.length > 0 || skipVerify ? { ca, skipVerify } : undefined;
  return { actions, tls, headers: Object.fromEntries(headers) };
}

/** Without this check, an authority that was never read would fail each connection as an unknown one. */
function certificatesOf(path: string, text: string, file: string): string[] {
  const found = pemCertificates(text);
  if (found.length > 0) return found;
  throw refused(path, `${file} has no certificate in PEM in it ("-----BEGIN CERTIFICATE-----")`);
}

/** `/v2` is appended to a path that lacks it, unless `override_path` says otherwise. */
function addressIn(
  path: string,
  text: string,
  overridePath: boolean,
): { origin: string; prefix: string } {
  const full = /^https?:\/\//i.test(text) ? text : `https://${text}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  if (url === undefined || url.username !== '' || url.password !== '') {
    throw refused(path, `${quoted(text)} is not the URL of a host`);
  }
  const below = url.pathname.replace(/\/+$/, '');
  const isWhole = overridePath || below.endsWith('/v2');
  return { origin: url.origin, prefix: isWhole ? below : `${below}/v2` };
}

function parseToml(path: string, text: string): z.infer<typeof hostsToml> {
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw refused(path, messageOf(error).split('\n', 1)[0] ?? '');
  }
  const checked = hostsToml.safeParse(value);
  if (checked.success) return checked.data;
  const { path: key = [], message = '' } = checked.error.issues[0] ?? {};
  throw refused(path, `"${key.join('.')}": ${message}`);
}

/** Undefined if there is no such file. */
function readText(path: string): string | undefined {
  try {
    const stat = statSync(path);
    const { size } = stat;
    // Reading a FIFO would block the whole process until it has a writer.
    if (stat.isFIFO()) throw refused(path, 'it is a FIFO');
    if (size > FILE_BYTES_MAX) throw refused(path, `it has ${size} bytes`);
    return readFileSync(path, 'utf8');
  } catch (error) {
    const system = systemCode(error);
    if (system === undefined) throw error;
    if (system === 'ENOENT' || system === 'ENOTDIR') return undefined;
    throw unreadable(path, error);
  }
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}

function unreadable(path: string, error: unknown): ObdError {
  const message = `Cannot read "${path}": ${messageOf(error)}`;
  return new ObdError(ErrorCodes.Io, message, { path }, error);
}

function refused(path: string, problem: string): ObdError {
  const message = `Cannot use containerd's host configuration "${path}": ${problem}`;
  return new ObdError(ErrorCodes.InvalidArgument, message, { path });
}

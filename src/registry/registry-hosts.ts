/**
 * The addresses and protocols of the registry of a host name. As in docker and containerd, `docker.io` is a name and
 * not an address.
 *
 *   1. `[registry.hosts]` of our own configuration gives a name another address: containerd's labels lose the port of
 *      `localhost:5000`.
 *   2. containerd's hosts.toml of that name gives mirrors, in order, and may give the registry's own address.
 *   3. Otherwise the address is the name, over TLS. A host that is listed as plain speaks HTTP. A host on this machine is
 *      asked over TLS, without a check of its certificate, and then over HTTP; the protocol that it answered is kept.
 *
 * HTTP is used for hosts in plain_http, for `http://` addresses of hosts.toml, for hosts on this machine, and for the
 * redirects and token servers of a registry that speaks HTTP (mayGoOn()). All other requests use TLS.
 */
import { createHash } from 'node:crypto';
import { isIPv4 } from 'node:net';
import { ErrorCodes, ObdError } from '../errors.js';
import { DOCKER_HUB, isHost } from '../oci/reference.js';
import type { Access } from './access.js';
import type { Endpoint, TlsSettings } from './endpoint.js';
import { HostsDirectory, type HostsFile } from './hosts-directory.js';

/** The registry of Docker Hub has this address. */
const DOCKER_HUB_ENDPOINT = `registry-1.${DOCKER_HUB}`;
/** For this time, a mirror that failed is tried last. */
const MIRROR_DOWN_MS = 60_000;
/** Far more than registries in use; at this limit the map is cleared. */
const LEARNT_MAX = 1024;

const UNCHECKED: TlsSettings = { ca: [], skipVerify: true };

export class RegistryHosts {
  #plain: ReadonlySet<string> = new Set();
  #endpoints: ReadonlyMap<string, string> = new Map();
  #directory: HostsDirectory | undefined;
  #version = 0;
  /** By host on this machine, the origin that answered. */
  readonly #answering = new Map<string, string>();
  /** By origin, on the clock of performance.now(). */
  readonly #downUntilMs = new Map<string, number>();
  /** The files hold certificates, so their text is far too long for a key. */
  readonly #hashes = new WeakMap<HostsFile, string>();

  /**
   * @param plainHttpHosts - `host` for all its ports, or `host:port`.
   * @param endpoints - Name of a host to the `host` or `host:port` of its real address.
   * @param hostsDirectory - containerd's, with a hosts.toml for each host; undefined reads none.
   * @throws {ObdError} `InvalidArgument` for text that is not a host.
   */
  constructor(
    plainHttpHosts: readonly string[],
    endpoints: Readonly<Record<string, string>> = {},
    hostsDirectory?: string,
  ) {
    this.replace(plainHttpHosts, endpoints, hostsDirectory);
  }

  /**
   * Replaces the settings from the next request on, and drops learnt addresses. Arguments and errors are those of the
   * constructor; an error leaves the settings unchanged.
   */
  replace(
    plainHttpHosts: readonly string[],
    endpoints: Readonly<Record<string, string>>,
    hostsDirectory: string | undefined,
  ): void {
    for (const host of plainHttpHosts) checkHost(host, 'plain-HTTP host');
    for (const [name, address] of Object.entries(endpoints)) {
      checkHost(name, 'name of a registry');
      checkHost(address, `endpoint of ${name}`);
    }
    this.#plain = new Set(plainHttpHosts.map((host) => host.toLowerCase()));
    this.#endpoints = new Map(Object.entries(endpoints));
    this.#directory = hostsDirectory === undefined ? undefined : new HostsDirectory(hostsDirectory);
    this.#answering.clear();
    this.#downUntilMs.clear();
    this.#version++;
  }

  /** Number of times that the settings were replaced. */
  get version(): number {
    return this.#version;
  }

  /** `registry-1.docker.io` for `docker.io`, the configured endpoint, or the host itself. */
  addressOf(host: string): string {
    return this.#endpoints.get(host) ?? (host === DOCKER_HUB ? DOCKER_HUB_ENDPOINT : host);
  }

  /**
   * The registry itself, not its mirrors: `https://registry-1.docker.io` for `docker.io`. A host on this machine has
   * `http`, even if it speaks TLS.
   *
   * @throws {ObdError} as HostsDirectory.lookUp().
   */
  originOf(host: string): string {
    return new URL(`${this.#schemeOf(host)}://${this.addressOf(host)}`).origin;
  }

  /**
   * `https://registry-1.docker.io/v2/library/debian/blobs`. Unlike originOf(), this keeps an explicit `:80` or `:443`:
   * logins, certs.d and plain_http name the registry with its port.
   *
   * @throws {ObdError} as HostsDirectory.lookUp().
   */
  blobsUrlOf(host: string, repository: string): string {
    return `${this.#schemeOf(host)}://${this.addressOf(host)}/v2/${repository}/blobs`;
  }

  /**
   * Returns the names under which a login for `host` may be configured, in order.
   *
   * A login is sent only to its own host. A login for the name counts only if the registry answers on that host, at any
   * port. An endpoint on another host, such as a mirror, has a separate login or none.
   */
  loginNames(host: string): string[] {
    const address = this.addressOf(host);
    if (address === host) return [host];
    const isHub = host === DOCKER_HUB && address === DOCKER_HUB_ENDPOINT;
    return isHub || sameHost(host, address) ? [host, address] : [address];
  }

  /** Whether data for `from` may be sent to `to`: over TLS, or as unprotected as before, or to a listed host. */
  mayGoOn(from: URL, to: URL): boolean {
    if (to.protocol === 'https:') return true;
    return (
      to.protocol === 'http:' &&
      (from.protocol === 'http:' || this.isListedPlain(registryAddress(to.href)))
    );
  }

  /**
   * Returns the addresses to try, in order; at least one.
   *
   * @throws {ObdError} as HostsDirectory.lookUp().
   */
  endpointsOf(host: string, action: Access['action']): readonly Endpoint[] {
    const file = this.#lookUp(host);
    const nowMs = performance.now();
    const needed = action === 'pull' ? 'pull' : 'push';
    const isDown = ({ origin }: Endpoint) => (this.#downUntilMs.get(origin) ?? 0) > nowMs;
    const mirrors = (file?.mirrors ?? [])
      .filter(({ actions }) => actions.includes(needed))
      .map((settings) => ({ ...settings, ...this.#identityOf(host, settings.origin) }));
    const itself = this.#itself(host, file).filter(({ actions }) => actions.includes(needed));
    // A file may list the registry itself among its hosts, as in nerdctl's documents.
    const others = itself.filter(({ origin }) => !mirrors.some((each) => each.origin === origin));
    const all = [...mirrors, ...others];
    const inOrder = [...all.filter((each) => !isDown(each)), ...all.filter(isDown)];
    return inOrder.length > 0 ? inOrder : this.#itself(host, undefined);
  }

  /**
   * A short text that changes when the configuration of this host does.
   *
   * @throws {ObdError} as HostsDirectory.lookUp().
   */
  settingsOf(host: string): string {
    const address = this.addressOf(host);
    const file = this.#lookUp(host);
    const hash = file === undefined ? '' : this.#hashOf(file);
    return `${address} ${this.#isPlain(host, address)} ${hash}`;
  }

  /** Returns the configured hosts `name:port` for a name without a port. */
  portsOf(name: string): string[] {
    return this.#directory?.portsOf(name) ?? [];
  }

  /** Whether our own configuration gives the name an address. */
  isGiven(host: string): boolean {
    return this.#endpoints.has(host);
  }

  /** Returns the TLS settings for the target of a registry's redirect. */
  tlsFor(host: string, url: URL): TlsSettings | undefined {
    const endpoints = this.endpointsOf(host, 'pull');
    const own = endpoints.find(({ origin }) => origin === url.origin);
    if (own !== undefined) return own.tls;
    const checked = endpoints.flatMap(({ tls }) =>
      tls !== undefined && tls.ca.length > 0 ? [tls] : [],
    );
    const [first, ...others] = checked;
    // Returns the same object each time: it is the key of pooled connections.
    if (first?.skipVerify === false && others.length === 0) return first;
    const ca = checked.flatMap((tls) => tls.ca);
    if (ca.length > 0) return { ca, skipVerify: false };
    return isLoopback(url.hostname) ? UNCHECKED : undefined;
  }

  /** Remembers the address of a host on this machine that answered; a mirror's answer says nothing of it. */
  answered(host: string, { origin, mirrorOf }: Endpoint): void {
    this.#downUntilMs.delete(origin);
    if (mirrorOf !== undefined) return;
    if (this.#answering.size >= LEARNT_MAX) this.#answering.clear();
    if (isLoopback(new URL(origin).hostname)) this.#answering.set(host, origin);
  }

  /**
   * Asks an address last for a while. An address of a host on this machine that has answered before stays the first: a
   * server that is away, or answers wrongly, has not changed its protocol.
   */
  failed(host: string, { origin, mirrorOf }: Endpoint): void {
    if (mirrorOf === undefined && this.#answering.get(host) === origin) return;
    if (this.#downUntilMs.size >= LEARNT_MAX) this.#downUntilMs.clear();
    this.#downUntilMs.set(origin, performance.now() + MIRROR_DOWN_MS);
  }

  /** A TLS server answers plain HTTP with 400: the next request tries TLS first. */
  answeredBadRequest(host: string, endpoint: Endpoint): void {
    if (this.#answering.get(host) === endpoint.origin) this.#answering.delete(host);
    else this.failed(host, endpoint);
  }

  /** Whether the operator listed this host as plain HTTP; hosts on this machine do not count by themselves. */
  isListedPlain(host: string): boolean {
    const lower = host.toLowerCase();
    return this.#plain.has(lower) || this.#plain.has(lower.replace(/:[0-9]+$/, ''));
  }

  #schemeOf(host: string): 'http' | 'https' {
    const address = this.addressOf(host);
    const { hostname, port } = new URL(`http://${address}`);
    const local = isLoopback(hostname) && port !== '443';
    const configured = this.#lookUp(host)?.server?.origin.startsWith('http:') ?? false;
    return local || configured || this.#isPlain(host, address) ? 'http' : 'https';
  }

  #isPlain(host: string, address: string): boolean {
    return this.isListedPlain(host) || this.isListedPlain(address);
  }

  #hashOf(file: HostsFile): string {
    let hash = this.#hashes.get(file);
    if (hash === undefined) {
      hash = createHash('sha256').update(JSON.stringify(file)).digest('base64url');
      this.#hashes.set(file, hash);
    }
    return hash;
  }

  #lookUp(host: string): HostsFile | undefined {
    return this.#directory?.lookUp(this.#endpoints.get(host) ?? host);
  }

  /** The logins that an address may get, and the registry that it mirrors. */
  #identityOf(host: string, origin: string): Pick<Endpoint, 'loginHosts' | 'mirrorOf'> {
    const at = new URL(origin);
    if (isHostOf(this.addressOf(host), at)) {
      return { loginHosts: this.loginNames(host), mirrorOf: undefined };
    }
    if (isHostOf(host, at)) return { loginHosts: [host], mirrorOf: undefined };
    // A URL drops the default port, which the name of a login may have.
    const names = new Set([at.host, registryAddress(origin)]);
    return { loginHosts: [...names], mirrorOf: host };
  }

  #itself(host: string, file: HostsFile | undefined): Endpoint[] {
    const address = this.addressOf(host);
    const settings = file?.serverSettings ?? NO_SETTINGS;
    const made = (origin: string, prefix: string, tls = settings.tls): Endpoint => {
      return { ...settings, origin, prefix, tls, ...this.#identityOf(host, origin) };
    };
    if (file?.server !== undefined) return [made(file.server.origin, file.server.prefix)];
    const secure = new URL(`https://${address}`);
    const plain = new URL(`http://${address}`).origin;
    if (this.#isPlain(host, address)) return [made(plain, '/v2')];
    if (!isLoopback(secure.hostname)) return [made(secure.origin, '/v2')];
    const both = [made(secure.origin, '/v2', settings.tls ?? UNCHECKED)];
    if (new URL(`http://${address}`).port !== '443') both.push(made(plain, '/v2'));
    const answering = this.#answering.get(host);
    const known = both.filter(({ origin }) => origin === answering);
    return known.length > 0 ? known : both;
  }
}

const NO_SETTINGS = { actions: ['pull', 'push'], tls: undefined, headers: {} } as const;

function isHostOf(host: string, url: URL): boolean {
  return new URL(`${url.protocol}//${host}`).host === url.host;
}

/** `host:port` of the registry in a URL of either protocol. */
export function registryAddress(url: string): string {
  const { protocol, hostname, port } = new URL(url);
  return `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`;
}

/** `localhost`, 127.0.0.0/8 and ::1, as URL.hostname writes them. */
export function isLoopback(hostname: string): boolean {
  if (hostname === 'localhost' || hostname === '[::1]') return true;
  return isIPv4(hostname) && hostname.startsWith('127.');
}

function sameHost(a: string, b: string): boolean {
  const [one, two] = [a, b].map((host) => new URL(`http://${host}`).hostname);
  return one === two;
}

function checkHost(host: string, role: string): void {
  if (isHost(host)) return;
  throw new ObdError(
    ErrorCodes.InvalidArgument,
    `${JSON.stringify(host)} is no ${role}: write it as host or host:port, without "http://"`,
  );
}

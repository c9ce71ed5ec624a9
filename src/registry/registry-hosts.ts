/**
 * Where the registry of a host name answers, and over what: TLS, unless the host is this machine or is
 * listed as speaking plain HTTP. As in docker and containerd, `docker.io` is a name and not an address.
 *
 * An endpoint is another address for a name: containerd's labels lose the port of `localhost:5000`.
 */
import { isIPv4 } from 'node:net';
import { ErrorCodes, ObdError } from '../errors.js';
import { DOCKER_HUB, isHost } from './reference.js';

/** The registry of Docker Hub answers here. */
const DOCKER_HUB_ENDPOINT = `registry-1.${DOCKER_HUB}`;

export class RegistryHosts {
  readonly #plain: ReadonlySet<string>;
  readonly #endpoints: ReadonlyMap<string, string>;

  /**
   * @param plainHttpHosts - `host` for all its ports, or `host:port`.
   * @param endpoints - Name of a host to the `host` or `host:port` where it really answers.
   * @throws {ObdError} `InvalidArgument` for what is no host.
   */
  constructor(plainHttpHosts: readonly string[], endpoints: Readonly<Record<string, string>> = {}) {
    for (const host of plainHttpHosts) checkHost(host, 'plain-HTTP host');
    for (const [name, address] of Object.entries(endpoints)) {
      checkHost(name, 'name of a registry');
      checkHost(address, `endpoint of ${name}`);
    }
    this.#plain = new Set(plainHttpHosts.map((host) => host.toLowerCase()));
    this.#endpoints = new Map(Object.entries(endpoints));
  }

  /** `registry-1.docker.io` for `docker.io`, what the endpoints say, or the host itself. */
  addressOf(host: string): string {
    return this.#endpoints.get(host) ?? (host === DOCKER_HUB ? DOCKER_HUB_ENDPOINT : host);
  }

  /** `https://registry-1.docker.io` for `docker.io`, `http://localhost:5000` for `localhost:5000`. */
  originOf(host: string): string {
    const address = this.addressOf(host);
    const { hostname, port } = new URL(`http://${address}`);
    const local = isLoopback(hostname) && port !== '443';
    const plain = local || this.isListedPlain(host) || this.isListedPlain(address);
    return new URL(`${plain ? 'http' : 'https'}://${address}`).origin;
  }

  /**
   * The names under which a login for `host` may be configured, in order.
   *
   * A login goes to the host that it is for: one for the name counts only if the registry answers on that same host, at
   * whatever port. An endpoint on another host, such as a mirror, has a login of its own or none.
   */
  loginNames(host: string): string[] {
    const address = this.addressOf(host);
    if (address === host) return [host];
    const isHub = host === DOCKER_HUB && address === DOCKER_HUB_ENDPOINT;
    return isHub || sameHost(host, address) ? [host, address] : [address];
  }

  /** Whether data for `from` may go on to `to`: over TLS, or as unprotected as before, or to a listed host. */
  mayGoOn(from: URL, to: URL): boolean {
    if (to.protocol === 'https:') return true;
    return to.protocol === 'http:' && (from.protocol === 'http:' || this.isListedPlain(to.host));
  }

  /** Whether the operator said that this host speaks plain HTTP; being this machine is not enough. */
  isListedPlain(host: string): boolean {
    const lower = host.toLowerCase();
    return this.#plain.has(lower) || this.#plain.has(lower.replace(/:[0-9]+$/, ''));
  }
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

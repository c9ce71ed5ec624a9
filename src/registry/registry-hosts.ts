/**
 * Where the registry of a host name answers, and over what: TLS, unless the host is this machine or is
 * listed as speaking plain HTTP. As in docker and containerd, `docker.io` is a name and not an address.
 */
import { isIPv4 } from 'node:net';
import { ErrorCodes, ObdError } from '../errors.js';
import { DOCKER_HUB, isHost } from './reference.js';

/** The registry of Docker Hub answers here. */
const DOCKER_HUB_ENDPOINT = `registry-1.${DOCKER_HUB}`;

export class RegistryHosts {
  readonly #plain: ReadonlySet<string>;

  /**
   * @param plainHttpHosts - `host` for all its ports, or `host:port`.
   * @throws {ObdError} `InvalidArgument` for what is no host.
   */
  constructor(plainHttpHosts: readonly string[]) {
    for (const host of plainHttpHosts) {
      if (isHost(host)) continue;
      throw new ObdError(
        ErrorCodes.InvalidArgument,
        `${JSON.stringify(host)} is no plain-HTTP host: write it as host or host:port, without "http://"`,
      );
    }
    this.#plain = new Set(plainHttpHosts.map((host) => host.toLowerCase()));
  }

  /** `https://registry-1.docker.io` for `docker.io`, `http://localhost:5000` for `localhost:5000`. */
  originOf(host: string): string {
    if (host === DOCKER_HUB) return `https://${DOCKER_HUB_ENDPOINT}`;
    const { hostname, port } = new URL(`http://${host}`);
    const plain = this.isListedPlain(host) || (isLoopback(hostname) && port !== '443');
    return `${plain ? 'http' : 'https'}://${host}`;
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

/** The name by which credentials and references know the registry that answers at `host`. */
export function registryName(host: string): string {
  return host === DOCKER_HUB_ENDPOINT ? DOCKER_HUB : host;
}

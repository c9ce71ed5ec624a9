/**
 * The addresses where the registry of a name may answer, if the name has lost its port: containerd's content labels
 * have none.
 *
 *   1. `[registry.hosts]` of our configuration, and then nothing else
 *   2. the directories `NAME:PORT` of containerd's hosts.toml files
 *   3. the names of images in the client's namespace that are from NAME at a port, images of the same repository first
 *   4. the name as it is
 */
import { connectContainerd } from '../containerd/connect.js';
import { ImageRecords } from '../containerd/image-records.js';
import { ObdError } from '../errors.js';
import { parseReference, withoutPort } from '../oci/reference.js';
import type { RegistryHosts } from '../registry/registry-hosts.js';

/** All are asked at once. Real hosts do not serve more registries than this. */
const PORTS_MAX = 8;

export interface Source {
  readonly host: string;
  readonly repository: string;
  /** The client and the labels do not name this address. */
  readonly isGuess?: boolean;
}

/** All addresses that the host of a source may stand for, the likeliest first. */
export async function addressesOf(
  source: Source,
  hosts: RegistryHosts,
  containerdSocket: string,
  namespace: string,
): Promise<Source[]> {
  const { host, repository } = source;
  if (hosts.isGiven(host) || withoutPort(host) !== host) return [source];
  const images = await imagesFrom(host, containerdSocket, namespace);
  const same = images.filter((image) => image.repository === repository);
  const atPorts = [...same, ...images].map((image) => image.host);
  const ports = [...new Set([...hosts.portsOf(host), ...atPorts])].slice(0, PORTS_MAX);
  if (ports.length === 0) return [source];
  return [...ports, host].map((address) => ({ host: address, repository, isGuess: true }));
}

/** The sources in image names of the namespace that have this host with a port. */
async function imagesFrom(
  host: string,
  containerdSocket: string,
  namespace: string,
): Promise<Source[]> {
  const client = connectContainerd(containerdSocket, namespace);
  try {
    const pattern = `^${host.replaceAll('.', '[.]')}:[0-9]+/`;
    const records = await new ImageRecords(client).list([`name~=${JSON.stringify(pattern)}`]);
    return records.flatMap(({ name }) => {
      const reference = referenceOf(name);
      return reference !== undefined && withoutPort(reference.host) === host ? [reference] : [];
    });
  } catch (error) {
    if (!(error instanceof ObdError)) throw error;
    return [];
  } finally {
    client.close();
  }
}

function referenceOf(name: string): Source | undefined {
  try {
    const { host, repository } = parseReference(name);
    return { host, repository };
  } catch {
    return undefined;
  }
}

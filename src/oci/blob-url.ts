/**
 * `repoBlobUrl` of an image config: `https://host[:port]/v2/<repository>/blobs`, and nothing else.
 *
 * `http://` is read too, as overlaybd's snapshotter writes it for plain registries; but which is spoken
 * is the registry client's own configuration's to say, so that no image config can turn TLS off.
 */
import { DOCKER_HUB, isHost, isRepository } from './reference.js';

/** The name that overlaybd's snapshotter writes for `docker.io`. */
const DOCKER_HUB_ADDRESS = `registry-1.${DOCKER_HUB}`;

export interface BlobRepository {
  /** As references and credentials name it: `docker.io` for Docker Hub. */
  readonly host: string;
  readonly repository: string;
}

/** Undefined for what is no such URL. One "/" at the end is as good as none. */
export function parseBlobUrl(text: string): BlobRepository | undefined {
  const match = /^https?:\/\/([^/]+)\/v2\/(.+)\/blobs\/?$/.exec(text);
  const [, host = '', repository = ''] = match ?? [];
  if (!isHost(host) || !isRepository(repository)) return undefined;
  return { host: host === DOCKER_HUB_ADDRESS ? DOCKER_HUB : host, repository };
}

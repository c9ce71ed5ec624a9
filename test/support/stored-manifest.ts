/**
 * Brings containerd to the state after its client has fetched a manifest, before it prepares layers: for tests that
 * prepare layers themselves.
 */
import { connectContainerd } from '../../src/containerd/connect.js';
import { ContentStore } from '../../src/containerd/content-store.js';
import { sha256Of } from '../../src/oci/digest.js';

export interface FetchedManifest {
  readonly config: { readonly digest: string };
  readonly layers: readonly object[];
}

/** @param source - The host without its port, as content labels have it, and the repository. */
export async function storeManifest(
  containerdSocket: string,
  namespace: string,
  manifest: FetchedManifest,
  source: readonly [host: string, repository: string],
): Promise<void> {
  const client = connectContainerd(containerdSocket, namespace);
  try {
    const bytes = Buffer.from(JSON.stringify(manifest));
    const labels = {
      'containerd.io/gc.root': 'test',
      'containerd.io/gc.ref.content.config': manifest.config.digest,
      [`containerd.io/distribution.source.${source[0]}`]: source[1],
    };
    const descriptor = { digest: sha256Of(bytes), size: bytes.length };
    await new ContentStore(client).write(descriptor, labels, [bytes]);
  } finally {
    client.close();
  }
}

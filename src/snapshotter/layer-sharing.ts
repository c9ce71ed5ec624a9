/**
 * Decides which layers one pull may take over from another. The type of a layer with a proved chain ID decides:
 *
 *   unpacked       for every pull: containerd unpacked it and checked its digest; so a trace
 *   remote         only for pulls from the same registry with the same size and, if both images name one, the same hash
 *                  tree: its bytes are not checked against the digest, so they depend on the registry. The tree of the first
 *                  pull stays: it was the one in the registry's blob, and another image must not be able to change it
 *
 * A remote layer is fetched from the repository of the latest pull that could read it.
 *
 * After `AlreadyExists`, containerd takes any layer that has the wanted chain ID on the wanted parent. So
 * either all such layers may be taken over, or the pull gets a snapshot to unpack a download in.
 *
 * containerd's namespaces share layers, as they share blobs. Where the configuration turns that off, a namespace gets a
 * layer that others had before it only if the registry gives the blob to a login of this namespace. The registry is asked
 * whenever containerd asks: access that a namespace once had may have been withdrawn.
 *
 * containerd's clients check a layer's digest when they unpack it. A client that commits something else under a chain ID
 * deceives all namespaces; but every client that can reach containerd's socket is root on this host.
 */
import { registryAddress } from '../registry/registry-hosts.js';
import type { LayerOrigin, WantedLayer } from './image-locator.js';
import { isBlockLayer, remoteBlob, type Snapshot } from './snapshot.js';
import type { SnapshotStore } from './snapshot-store.js';

export type LayerDecision =
  /** The name of a snapshot that is this layer. */
  | { readonly existing: string }
  /** Where it can be fetched from, lazily. */
  | { readonly repoBlobUrl: string }
  /** Why containerd has to download it. */
  | { readonly download: string };

export class LayerSharing {
  readonly #store: SnapshotStore;
  readonly #betweenNamespaces: boolean;

  constructor(store: SnapshotStore, betweenNamespaces: boolean) {
    this.#store = store;
    this.#betweenNamespaces = betweenNamespaces;
  }

  /**
   * @param known - All committed snapshots with this chain ID on this parent; containerd may choose any of them.
   * @param namespace - The client's containerd namespace.
   * @throws {ObdError} errors of the origin.
   */
  async decide(
    known: readonly Snapshot[],
    wanted: WantedLayer,
    origin: LayerOrigin,
    namespace: string | undefined,
  ): Promise<LayerDecision> {
    const refused = await this.#namespaceProblem(wanted, origin, namespace);
    if (refused !== undefined) return { download: refused };
    const [first] = known;
    if (first === undefined) {
      const repoBlobUrl = await origin.repoBlobUrl();
      if (repoBlobUrl !== undefined) return { repoBlobUrl };
      return { download: 'its registry is not known, or does not give it to obd-ts' };
    }
    for (const snapshot of known) {
      const problem = await sharingProblem(snapshot, wanted, origin);
      if (problem !== undefined) return { download: `snapshot "${snapshot.name}" ${problem}` };
    }
    if (namespace !== undefined) this.#store.addNamespace(first.name, namespace);
    // The repository of the first pull may disappear; this pull's repository has the layer now.
    const repoBlobUrl = await origin.repoBlobUrl();
    for (const { name, layer } of known) {
      const remote = remoteBlob(layer);
      if (remote === undefined || repoBlobUrl === undefined) continue;
      if (remote.repoBlobUrl !== repoBlobUrl) this.#store.setRepository(name, repoBlobUrl);
    }
    return { existing: first.name };
  }

  async #namespaceProblem(
    { chainId, digest }: WantedLayer,
    origin: LayerOrigin,
    namespace: string | undefined,
  ): Promise<string | undefined> {
    if (this.#betweenNamespaces) return undefined;
    const layers = this.#store.layersOf(chainId, digest);
    if (layers.length === 0) return undefined;
    // The namespace that pulled it first did not get it from another.
    const isFirst = ({ namespaces: [first] }: Snapshot) =>
      first !== undefined && first === namespace;
    if (!layers.every(isFirst) && !(await origin.hasNamespaceLogin())) {
      return 'another namespace has it, and no login for its registry is configured for this one';
    }
    const isGranted = (await origin.repoBlobUrl()) !== undefined;
    return isGranted ? undefined : 'the registry does not give it to this namespace';
  }
}

/** Why a pull must not be given this layer; undefined if it may. */
async function sharingProblem(
  { layer, chainId }: Snapshot,
  wanted: WantedLayer,
  origin: LayerOrigin,
): Promise<string | undefined> {
  if (!isBlockLayer(layer)) return 'is a plain layer of this name';
  if (chainId !== wanted.chainId) return 'is not proved to be this layer';
  const remote = remoteBlob(layer);
  if (remote === undefined) return undefined;
  const { digest, sizeBytes, repoBlobUrl } = remote;
  const isSame = digest === wanted.digest && sizeBytes === wanted.sizeBytes;
  if (!isSame) return 'is this layer with another size';
  const root = layer.type === 'blocks' ? layer.lower.hashTree?.root : undefined;
  const wantedRoot = wanted.lower.hashTree?.root;
  if (root !== undefined && wantedRoot !== undefined && root !== wantedRoot) {
    return `is this layer with the hash tree ${root}, which it keeps, and this image names ${wantedRoot}`;
  }
  const found = origin.registry === undefined ? await origin.repoBlobUrl() : undefined;
  const registry = found === undefined ? origin.registry : registryAddress(found);
  if (registry === registryAddress(repoBlobUrl)) return undefined;
  return `is this layer as registry ${registryAddress(repoBlobUrl)} has it, and this pull is from ${registry ?? 'an unknown registry'}`;
}

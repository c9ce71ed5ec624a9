/**
 * A snapshot as clients see it: with labels that say which registry a layer is read from and why one is refused, and fields
 * for their filters.
 *
 * containerd takes any committed snapshot whose REF_LABEL is the wanted chain ID. Clients can change labels, so REF_LABEL
 * is hidden on a block layer whose chain ID is another, or is not proved.
 */
import { registryAddress } from '../registry/registry-hosts.js';
import { REF_LABEL, REFUSED_LABEL, REGISTRY_LABEL, SERVED_LABEL } from './labels.js';
import { refusal } from './layer-identity.js';
import { isBlockLayer, isUnproved, remoteBlob, type Snapshot } from './snapshot.js';

export function shown(snapshot: Snapshot): Snapshot {
  const { kind, layer, chainId } = snapshot;
  const { [REF_LABEL]: ref, [REGISTRY_LABEL]: _, ...others } = snapshot.labels;
  const isFalse = kind === 'committed' && isBlockLayer(layer) && ref !== chainId;
  const remote = remoteBlob(layer);
  const labels = {
    ...others,
    ...(ref === undefined || isFalse ? {} : { [REF_LABEL]: ref }),
    ...(remote === undefined ? {} : { [REGISTRY_LABEL]: registryAddress(remote.repoBlobUrl) }),
  };
  if (!isUnproved(snapshot)) return { ...snapshot, labels };
  const refused = { [SERVED_LABEL]: 'refused', [REFUSED_LABEL]: refusal(snapshot).message };
  return { ...snapshot, labels: { ...labels, ...refused } };
}

/** For filters, as containerd's snapshotters name the fields. */
export function fieldOf(
  snapshot: Snapshot,
  [first, ...rest]: readonly string[],
): string | undefined {
  switch (first) {
    case 'name':
      return snapshot.name;
    case 'parent':
      return snapshot.parent;
    case 'kind':
      return snapshot.kind;
    case 'labels': {
      const label = rest.join('.');
      return Object.hasOwn(snapshot.labels, label) ? snapshot.labels[label] : undefined;
    }
    default:
      return undefined;
  }
}

/** A snapshot as clients see it: with labels that say why a layer is refused, and fields for their filters. */
import { REFUSED_LABEL, SERVED_LABEL } from './labels.js';
import { refusal } from './layer-identity.js';
import { isUnproved, type Snapshot } from './snapshot.js';

export function shown(snapshot: Snapshot): Snapshot {
  if (!isUnproved(snapshot)) return snapshot;
  const refused = { [SERVED_LABEL]: 'refused', [REFUSED_LABEL]: refusal(snapshot).message };
  return { ...snapshot, labels: { ...snapshot.labels, ...refused } };
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

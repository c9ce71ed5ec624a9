/**
 * Labels as containerd's own client sets them: references between documents, for garbage collection, and the source of
 * a blob. Snapshotters find the registry of a layer by the source label, so its form must be containerd's.
 */
import type { Labels } from '../containerd/content-store.js';
import type { Descriptor } from '../oci/manifest.js';
import { IMAGE_MANIFEST_TYPES } from '../oci/media-types.js';
import type { ImageReference } from '../oci/reference.js';

const REFERS_TO = 'containerd.io/gc.ref.content';
/** containerd's limit for key and value together. */
const LABEL_BYTES_MAX = 4096;
const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.|docker\.(?:image\.rootfs\.(?:diff|foreign\.diff)\.tar|container\.image\.rootfs\.diff))/;

export function isLayer({ mediaType }: Descriptor): boolean {
  return LAYER_TYPE.test(mediaType);
}

/** Returns the label with which a manifest keeps its config. */
export function configLabel({ digest }: Descriptor): Labels {
  return { [`${REFERS_TO}.config`]: digest };
}

/**
 * Returns the labels with which a document keeps those it lists: manifests as m.0, m.1, layers as l.0, l.1, others by
 * number.
 */
export function childLabels(children: readonly Descriptor[]): Labels {
  const counts = new Map<string, number>();
  const labels: Record<string, string> = {};
  for (const child of children) {
    const kind = IMAGE_MANIFEST_TYPES.includes(child.mediaType) ? 'm.' : isLayer(child) ? 'l.' : '';
    const number = counts.get(kind) ?? 0;
    counts.set(kind, number + 1);
    labels[`${REFERS_TO}.${kind}${number}`] = child.digest;
  }
  return labels;
}

/**
 * `containerd.io/distribution.source.HOST` = the repositories of HOST that have the blob, sorted, including that of
 * `reference`. HOST is without its port, as in containerd. Returns no label if it would be too long.
 *
 * @param known - The labels that the blob has now.
 */
export function sourceLabels(known: Labels, { host, repository }: ImageReference): Labels {
  const name = host.replace(/:[0-9]+$/, '').replace(/^\[(.*)\]$/, '$1');
  const key = `containerd.io/distribution.source.${name}`;
  const repositories = new Set((known[key] ?? '').split(',').filter((each) => each !== ''));
  const value = [...repositories.add(repository)].sort().join(',');
  return key.length + value.length > LABEL_BYTES_MAX ? {} : { [key]: value };
}

/**
 * The labels of containerd's own client: what refers to what, for garbage collection, and where it came from.
 * Snapshotters find the registry of a layer by them, so they are written here as they are there.
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

/** Of the manifest, which keeps its config. */
export function configLabel({ digest }: Descriptor): Labels {
  return { [`${REFERS_TO}.config`]: digest };
}

/** Of a document, which keeps those it lists: manifests as m.0, m.1, layers as l.0, l.1, anything else by number. */
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
 * `containerd.io/distribution.source.HOST` = the repositories of HOST that have the blob, sorted, with the one of
 * `reference` among them. HOST is without its port, as containerd has it. Nothing if that would be too long for a
 * label.
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

/**
 * An image with overlaybd's acceleration layer on top of its own layers, as overlaybd's `record-trace` makes it: another manifest and
 * another config. Neither the image nor its load orders change.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { ACCELERATION_LAYER_ANNOTATION } from '../layers/overlaybd-annotations.js';
import { TRACED_READS_MAX, type TracedRead } from '../layers/read-trace.js';
import { type TraceLayer, traceLayer } from '../layers/trace-layer.js';
import type { LoadOrder } from '../load-order/load-order.js';
import { sha256Of } from '../oci/digest.js';
import { withDiffIds } from '../oci/image-identity.js';
import {
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  LAYERS_MAX,
} from '../oci/manifest.js';

/** The annotations of load orders name the image without the layer. */
const OWN_PREFIX = 'dev.obd-ts.';
const PAGE_BYTES = 4096;
const CREATED_BY = 'Acceleration Layer';

export interface TracedImage {
  readonly layer: TraceLayer;
  readonly config: { readonly descriptor: Descriptor; readonly bytes: Buffer };
  /** Its media type is that of the image's manifest. */
  readonly manifest: Buffer;
}

/** @throws {ObdError} `FailedPrecondition` for an image that has such a layer, or no room for one. */
export function checkTraceable({ layers }: ImageManifest, label: string): void {
  const isTraced = layers.some(
    ({ annotations = {} }) => ACCELERATION_LAYER_ANNOTATION in annotations,
  );
  const problem = isTraced
    ? 'it has a trace layer; name the image without it'
    : layers.length >= LAYERS_MAX
      ? `it has ${layers.length} layers, and ${LAYERS_MAX} are the limit`
      : undefined;
  if (problem === undefined) return;
  const message = `Cannot add a trace layer to ${label}: ${problem}`;
  throw new ObdError(ErrorCodes.FailedPrecondition, message);
}

interface ImageParts {
  readonly manifest: ImageManifest;
  readonly config: ImageConfig;
  /** The disk's, as the image's layers name it; empty if they do not. */
  readonly fileSystem: string;
}

/**
 * @param order - The pages that a start of the image reads.
 * @param created - The new config's time.
 */
export function tracedImage(
  { manifest, config, fileSystem }: ImageParts,
  order: LoadOrder,
  created: Date,
): TracedImage {
  const layer = traceLayer(readsOf(order), fileSystem);
  const { history } = config;
  const time = created.toISOString();
  const entry = { created: time, created_by: CREATED_BY };
  // In front of the others, as overlaybd's tools have it.
  const entries = [entry, ...(Array.isArray(history) ? history : [])];
  const changed = { ...config, created: time, history: entries };
  const configBytes = withDiffIds(changed, [...config.rootfs.diff_ids, layer.descriptor.digest]);
  const descriptor = {
    mediaType: manifest.config.mediaType,
    digest: sha256Of(configBytes),
    size: configBytes.length,
  };
  const kept = Object.entries(manifest.annotations ?? {}).filter(
    ([key]) => !key.startsWith(OWN_PREFIX),
  );
  const traced = {
    schemaVersion: 2,
    mediaType: manifest.mediaType,
    config: descriptor,
    layers: [...manifest.layers, layer.descriptor],
    ...(kept.length > 0 && { annotations: Object.fromEntries(kept) }),
  };
  return {
    layer,
    config: { descriptor, bytes: configBytes },
    manifest: Buffer.from(JSON.stringify(traced)),
  };
}

/** The pages of the order, neighbours together. A layer's file ends with an index and a trailer, so no page ends behind it. */
function readsOf({ runs }: LoadOrder): TracedRead[] {
  const reads: TracedRead[] = [];
  for (const { layer, leaf, count } of runs) {
    const [offset, length] = [leaf * PAGE_BYTES, count * PAGE_BYTES];
    const last = reads.at(-1);
    if (last?.layer === layer && last.offset + last.length === offset) {
      reads[reads.length - 1] = { ...last, length: last.length + length };
    } else reads.push({ layer, offset, length });
  }
  return reads.slice(0, TRACED_READS_MAX);
}

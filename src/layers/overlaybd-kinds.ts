/**
 * The kinds of layer that overlaybd's tools make, by their annotations and their magic.
 *
 *   overlaybd         a layer of blocks (docs/formats/lsmt.md), in a ZFile or plain, in a tar or not
 *   overlaybd-turbo   TurboOCI: such a layer with the file system's metadata; the contents are in the original layer's tar
 *   overlaybd-trace   a trace of reads; its digest is the blob's, too
 *
 * The blob of each is a tar of one file, so that clients which do not know the kind can unpack it.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { hasLayerMagic } from '../lsmt/layer-header.js';
import { isDigest } from '../oci/digest.js';
import { hasZFileMagic } from '../zfile/zfile-magic.js';
import type { DescribedLayer, LayerDescription, LayerKind } from './layer-kind.js';
import type { LowerLayer } from './lower-layer.js';
import {
  ACCELERATION_LAYER_ANNOTATION,
  BLOB_DIGEST_ANNOTATION,
  BLOB_FS_TYPE_ANNOTATION,
  BLOB_SIZE_ANNOTATION,
  HASH_TREE_ANNOTATION,
  METADATA_BYTES_ANNOTATION,
  NATIVE_VERSION,
  OVERLAYBD_PREFIX,
  TURBO_TARGET_ANNOTATIONS,
  TURBO_VERSIONS,
  VERSION_ANNOTATION,
} from './overlaybd-annotations.js';

const DEFAULT_FILE_SYSTEM = 'ext4';
/** Where the payload may begin: without a tar, or behind one of the two forms of header in tar-wrapper.ts. */
const PAYLOAD_OFFSETS = [0, 512, 1536] as const;
/** overlaybd's prefetch.cpp: the CRC-32 of "Container Image Trace Format", little-endian. */
const TRACE_MAGIC = Buffer.from('2018efc2', 'hex');

export const OVERLAYBD: LayerKind = {
  name: 'overlaybd',
  holds: 'blocks',
  unpackedName: 'overlaybd.commit',
  annotationPrefix: OVERLAYBD_PREFIX,
  isDescribedBy: (description) => digestIn(description) !== undefined,
  describe: (description) => {
    const version = description.annotations?.[VERSION_ANNOTATION] ?? NATIVE_VERSION;
    if (version === NATIVE_VERSION) return { holds: 'blocks', ...blobOf(description) };
    const problem = `only version ${NATIVE_VERSION} is known here; update obd-ts, or convert the original image with obdconv`;
    throw refused(description, VERSION_ANNOTATION, version, problem);
  },
  recognizes: hasBlocks,
};

const TURBO_PROBLEM =
  "it is a TurboOCI layer: its blob has the file system's metadata and no file contents; pull the original image, or convert that with obdconv";

export const OVERLAYBD_TURBO: LayerKind = {
  name: 'overlaybd-turbo',
  holds: 'blocks',
  unpackedName: undefined,
  annotationPrefix: OVERLAYBD_PREFIX,
  isDescribedBy: (description) => turboAnnotationIn(description) !== undefined,
  describe: (description) => {
    const annotation = turboAnnotationIn(description) ?? VERSION_ANNOTATION;
    const value = description.annotations?.[annotation] ?? '';
    throw refused(description, annotation, value, TURBO_PROBLEM, ErrorCodes.Unsupported);
  },
  recognizes: (head, lower) =>
    Boolean(lower.targetFile || lower.targetDigest || lower.gzipIndex) && hasBlocks(head),
};

const TRACE_NAME = 'overlaybd-trace';

export const OVERLAYBD_TRACE: LayerKind = {
  name: TRACE_NAME,
  holds: 'trace',
  unpackedName: undefined,
  annotationPrefix: OVERLAYBD_PREFIX,
  isDescribedBy: (description) =>
    digestIn(description) !== undefined &&
    description.annotations?.[ACCELERATION_LAYER_ANNOTATION] === 'yes',
  describe: (description) => {
    const { lower, fileSystem } = blobOf(description);
    return { holds: 'trace', lower: { ...lower, kind: TRACE_NAME }, fileSystem };
  },
  // The magic is so short that compressed blocks may have it.
  recognizes: (head) => !hasBlocks(head) && hasTrace(head),
};

function hasBlocks(head: Uint8Array): boolean {
  return PAYLOAD_OFFSETS.some((at) => {
    const payload = head.subarray(at);
    return hasZFileMagic(payload) || hasLayerMagic(payload);
  });
}

function hasTrace(head: Uint8Array): boolean {
  return PAYLOAD_OFFSETS.some((at) =>
    TRACE_MAGIC.equals(head.subarray(at, at + TRACE_MAGIC.length)),
  );
}

/** Undefined for an annotation that names another blob than the descriptor. */
function digestIn({ digest, annotations }: LayerDescription): string | undefined {
  const annotated = annotations?.[BLOB_DIGEST_ANNOTATION];
  return digest === undefined || digest === annotated ? annotated : undefined;
}

/** The annotation that marks a layer as TurboOCI, of today's name or the one before; undefined for another layer. */
function turboAnnotationIn({ annotations = {} }: LayerDescription): string | undefined {
  if (TURBO_VERSIONS.includes(annotations[VERSION_ANNOTATION] ?? '')) return VERSION_ANNOTATION;
  return TURBO_TARGET_ANNOTATIONS.find((each) => annotations[each] !== undefined);
}

function blobOf(description: LayerDescription): Pick<DescribedLayer, 'lower' | 'fileSystem'> {
  const { annotations = {} } = description;
  const digest = digestIn(description) ?? '';
  if (!isDigest(digest)) {
    throw refused(description, BLOB_DIGEST_ANNOTATION, digest, 'it is no sha256 digest');
  }
  const text = annotations[BLOB_SIZE_ANNOTATION] ?? String(description.size ?? '');
  const size = /^[1-9][0-9]*$/.test(text) ? Number(text) : 0;
  if (!Number.isSafeInteger(size) || size === 0) {
    throw refused(description, BLOB_SIZE_ANNOTATION, text, 'it is no size in bytes');
  }
  const [fileSystem = ''] = (annotations[BLOB_FS_TYPE_ANNOTATION] ?? DEFAULT_FILE_SYSTEM).split(
    ';',
  );
  const metadataBytes = metadataBytesIn(annotations);
  const hashTree = hashTreeIn(description, size);
  const lower = {
    digest,
    size,
    ...(metadataBytes !== undefined && { metadataBytes }),
    ...(hashTree !== undefined && { hashTree }),
  };
  return { lower, fileSystem };
}

/** Undefined for a number that cannot be right: the layer is then fetched as it is read. */
function metadataBytesIn(annotations: Readonly<Record<string, string>>): number | undefined {
  const text = annotations[METADATA_BYTES_ANNOTATION] ?? '';
  return /^[1-9][0-9]{0,11}$/.test(text) ? Number(text) : undefined;
}

/** @throws {ObdError} `InvalidArgument` for an annotation that is no use: without its tree the layer would not be proved. */
function hashTreeIn(description: LayerDescription, size: number): LowerLayer['hashTree'] {
  const text = description.annotations?.[HASH_TREE_ANNOTATION];
  if (text === undefined) return undefined;
  const [, root, offset] = /^(sha256:[0-9a-f]{64})@([1-9][0-9]{0,14})$/.exec(text) ?? [];
  if (root !== undefined && Number(offset) < size) return { root, offset: Number(offset) };
  const problem = 'it is no sha256 root with an offset in the blob';
  throw refused(description, HASH_TREE_ANNOTATION, text, problem);
}

function refused(
  description: LayerDescription,
  annotation: string,
  value: string,
  problem: string,
  code: ObdError['code'] = ErrorCodes.InvalidArgument,
): ObdError {
  const shown = JSON.stringify(value.slice(0, 100));
  const digest = description.digest ?? description.annotations?.[BLOB_DIGEST_ANNOTATION] ?? '';
  const layer = isDigest(digest) ? `layer ${digest}` : 'layer';
  const message = `Cannot use the overlaybd ${layer} with ${annotation}=${shown}: ${problem}`;
  return new ObdError(code, message, isDigest(digest) ? { digest } : {});
}

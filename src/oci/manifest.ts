/**
 * The documents that describe an image, checked once and typed from then on: descriptor, manifest, index and config, in
 * OCI's and Docker's forms, which differ in media types only (OCI image spec 1.1: "manifest", "image-index", "config";
 * Docker image manifest 2.2).
 *
 * Guarantees for each returned document:
 *
 *   1. Every digest is valid (digest.ts), every size a safe integer >= 0.
 *   2. Its kind is unambiguous: its media type agrees with the one it was served under, and it is not manifest and index
 *      at once. (One byte string read as two kinds of document by two readers is the attack of CVE-2021-41190.)
 *   3. It has no more than LAYERS_MAX layers or INDEX_ENTRIES_MAX manifests.
 *
 * Unknown fields are kept as they are, so that a document can be written back.
 */
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../errors.js';
import { sha256Of } from './digest.js';
import {
  annotations,
  check,
  checkLimit,
  corrupt,
  digest,
  mediaType,
  parseObject,
  short,
} from './document.js';
import {
  DOCKER_INDEX,
  DOCKER_MANIFEST,
  IMAGE_MANIFEST_TYPES,
  INDEX_TYPES,
  OCI_INDEX,
  OCI_MANIFEST,
  SCHEMA1_TYPES,
} from './media-types.js';

/**
 * Registries must accept at least this much (OCI distribution spec, "Pushing Manifests"), and containerd accepts no
 * more.
 */
export const MANIFEST_BYTES_MAX = 4 << 20;
/** containerd reads at most this much of a config. Its history and labels can be long. */
export const CONFIG_BYTES_MAX = 8 << 20;
/** A stack of layers numbers its layers in one byte, with one value reserved. */
export const LAYERS_MAX = 255;
/** An index has an entry per platform and perhaps one per attestation: dozens, not thousands. */
export const INDEX_ENTRIES_MAX = 1024;

const platform = z.looseObject({
  os: z.string(),
  architecture: z.string(),
  variant: z.string().optional(),
});

export const descriptor = z.looseObject({
  mediaType,
  digest,
  size: z.int().nonnegative(),
  annotations: annotations.optional(),
  platform: platform.optional(),
});

export type Descriptor = z.infer<typeof descriptor>;

const imageManifest = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: mediaType.optional(),
  config: descriptor,
  layers: z.array(descriptor),
  annotations: annotations.optional(),
});

const imageIndex = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: mediaType.optional(),
  manifests: z.array(descriptor),
  annotations: annotations.optional(),
});

const imageConfig = z.looseObject({
  os: z.string(),
  architecture: z.string(),
  variant: z.string().optional(),
  rootfs: z.looseObject({ type: z.literal('layers'), diff_ids: z.array(digest) }),
});

export type ImageManifest = z.infer<typeof imageManifest>;
export type ImageIndex = z.infer<typeof imageIndex>;
export type ImageConfig = z.infer<typeof imageConfig>;

interface Stored {
  /** Describes `bytes` by media type, digest and size, without the source's annotations or URLs. */
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}
export type StoredImage = Stored & { readonly kind: 'image'; readonly manifest: ImageManifest };
type StoredIndex = Stored & { readonly kind: 'index'; readonly index: ImageIndex };
export type StoredManifest = StoredImage | StoredIndex;

/**
 * Parses a manifest or an index.
 *
 * @param bytes - As stored; kept in the result. At most MANIFEST_BYTES_MAX.
 * @param servedAs - The media type that the server stated; undefined or a general one (`application/json`) says
 *   nothing.
 * @param label - The document's name in messages.
 * @throws {ObdError} `Corrupt` if it breaks a rule above, `Unsupported` if it is beyond a limit, has sha512 digests or
 *   is not an image.
 */
export function parseManifest(
  bytes: Uint8Array,
  servedAs: string | undefined,
  label: string,
): StoredManifest {
  checkLimit(bytes.length, MANIFEST_BYTES_MAX, 'bytes', label);
  const json = parseObject(bytes, label);
  const type = manifestType(json, servedAs, label);
  const described = { mediaType: type, digest: sha256Of(bytes), size: bytes.length };
  if (INDEX_TYPES.includes(type)) {
    const index = check(imageIndex, json, label);
    checkLimit(index.manifests.length, INDEX_ENTRIES_MAX, 'manifests', label);
    return { kind: 'index', descriptor: described, bytes, index };
  }
  const manifest = check(imageManifest, json, label);
  checkLimit(manifest.layers.length, LAYERS_MAX, 'layers', label);
  return { kind: 'image', descriptor: described, bytes, manifest };
}

/**
 * Parses an image config.
 *
 * @throws {ObdError} `Corrupt`, `Unsupported`, as parseManifest().
 */
export function parseImageConfig(bytes: Uint8Array, label: string): ImageConfig {
  checkLimit(bytes.length, CONFIG_BYTES_MAX, 'bytes', label);
  const config = check(imageConfig, parseObject(bytes, label), label);
  checkLimit(config.rootfs.diff_ids.length, LAYERS_MAX, 'diff_ids', label);
  return config;
}

/** Parses the index.json of an OCI layout: an index that need not say its media type. */
export function parseLayoutIndex(bytes: Uint8Array, label: string): ImageIndex {
  checkLimit(bytes.length, MANIFEST_BYTES_MAX, 'bytes', label);
  const index = check(imageIndex, parseObject(bytes, label), label);
  checkLimit(index.manifests.length, INDEX_ENTRIES_MAX, 'manifests', label);
  return index;
}

/**
 * Returns the one media type on which the document, its fields and its server agree.
 *
 * @throws {ObdError} `Corrupt` if they disagree, `Unsupported` if it is neither manifest nor index.
 */
export function manifestType(
  json: Readonly<Record<string, unknown>>,
  servedAs: string | undefined,
  label: string,
): string {
  const inside = typeof json['mediaType'] === 'string' ? json['mediaType'] : undefined;
  const outside = isGeneral(servedAs) ? undefined : servedAs;
  if (inside !== undefined && outside !== undefined && inside !== outside) {
    throw corrupt(label, `it says it is "${short(inside)}", and came as "${short(outside)}"`);
  }
  const looksLikeIndex = 'manifests' in json;
  const looksLikeImage = 'layers' in json || 'config' in json;
  if (looksLikeIndex && looksLikeImage) {
    throw corrupt(label, 'it has the fields of a manifest and those of an index');
  }
  const type = inside ?? outside ?? (looksLikeIndex ? OCI_INDEX : OCI_MANIFEST);
  if (SCHEMA1_TYPES.includes(type) || json['schemaVersion'] === 1) {
    const remedy = 'pull and push it with a current docker or skopeo to renew it';
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot use ${label}: it is a Docker manifest of schema 1, which is obsolete; ${remedy}`,
    );
  }
  if (!IMAGE_MANIFEST_TYPES.includes(type) && !INDEX_TYPES.includes(type)) {
    const known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(', ');
    throw new ObdError(
      ErrorCodes.Unsupported,
      `Cannot use ${label}: "${short(type)}" is no image; wanted one of ${known}`,
    );
  }
  return type;
}

/** Media types that some servers state for any manifest. */
function isGeneral(mediaType: string | undefined): boolean {
  if (mediaType === undefined || mediaType === '') return true;
  return ['application/json', 'application/octet-stream', 'text/plain'].includes(mediaType);
}

/**
 * Lists of referrers: the artifacts that name a manifest as their `subject` (OCI distribution spec 1.1, "Listing
 * Referrers"). A list is an index, from a registry's referrers API or stored under the fall-back tag.
 *
 * Other programs write to the same list. An entry of theirs that obd-ts cannot use, as one with a sha512 digest, is kept
 * as it is and harms no other entry.
 */
import * as z from 'zod';
import { annotations, checkLimit, corrupt, digest, mediaType, parseObject } from './document.js';
import { INDEX_ENTRIES_MAX, MANIFEST_BYTES_MAX, manifestType } from './manifest.js';
import { INDEX_TYPES, OCI_INDEX } from './media-types.js';

/** All keys and values of one artifact together; a start command with its arguments fits several times. */
export const ANNOTATION_BYTES_MAX = 16 << 10;

/** An artifact, as the list of its subject describes it. */
export interface ReferrerDescriptor {
  readonly digest: string;
  /** Bytes of the artifact's manifest. */
  readonly size: number;
  readonly mediaType: string;
  /** Empty if the list does not say. */
  readonly artifactType: string;
  /** At most ANNOTATION_BYTES_MAX. */
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ListedReferrer {
  /** As stored, with all its fields. */
  readonly entry: unknown;
  /** Undefined if obd-ts cannot use the entry. */
  readonly referrer: ReferrerDescriptor | undefined;
}

export interface ReferrerList {
  /** Of the index. */
  readonly mediaType: string;
  /** The fields of the index, without `manifests`. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** At most INDEX_ENTRIES_MAX. */
  readonly listed: readonly ListedReferrer[];
}

export const artifactAnnotations = annotations
  .default({})
  .refine((all) => annotationBytes(all) <= ANNOTATION_BYTES_MAX, 'are too long');

const listEntry = z.object({
  mediaType,
  digest,
  size: z.int().min(1).max(MANIFEST_BYTES_MAX),
  artifactType: mediaType.or(z.literal('')).default(''),
  annotations: artifactAnnotations,
});

/** UTF-8 bytes of all keys and values. */
export function annotationBytes(all: Readonly<Record<string, string>>): number {
  return Object.entries(all).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(value),
    0,
  );
}

/** The tag that lists the referrers of `digest` at a registry without the API: `sha256-<hex>`. */
export function fallbackTagOf(digest: string): string {
  return digest.replace(':', '-');
}

/**
 * @param bytes - At most MANIFEST_BYTES_MAX.
 * @param servedAs - The media type that the server stated.
 * @throws {ObdError} `Corrupt`, `Unsupported` if it is no index or beyond a limit.
 */
export function parseReferrerList(
  bytes: Uint8Array,
  servedAs: string | undefined,
  label: string,
): ReferrerList {
  checkLimit(bytes.length, MANIFEST_BYTES_MAX, 'bytes', label);
  const json = parseObject(bytes, label);
  const { manifests, ...fields } = json;
  const type = manifestType(json, servedAs, label);
  if (!INDEX_TYPES.includes(type) || !Array.isArray(manifests)) {
    throw corrupt(label, 'it is no index');
  }
  checkLimit(manifests.length, INDEX_ENTRIES_MAX, 'manifests', label);
  const listed = manifests.map((entry: unknown) => {
    return { entry, referrer: listEntry.safeParse(entry).data };
  });
  return { mediaType: type, fields, listed };
}

/** The list of a subject without artifacts. */
export const NO_REFERRERS: ReferrerList = { mediaType: OCI_INDEX, fields: {}, listed: [] };

/**
 * The index to store for a list: entries and fields as they were read.
 *
 * @throws {ObdError} `Unsupported` for a list that parseReferrerList() would refuse.
 */
export function encodeReferrerList(
  { mediaType: type, fields, listed }: ReferrerList,
  label: string,
): Uint8Array {
  checkLimit(listed.length, INDEX_ENTRIES_MAX, 'manifests', label);
  const manifests = listed.map(({ entry }) => entry);
  const index = { schemaVersion: 2, ...fields, mediaType: type, manifests };
  const bytes = Buffer.from(JSON.stringify(index));
  checkLimit(bytes.length, MANIFEST_BYTES_MAX, 'bytes', label);
  return bytes;
}

/**
 * Artifacts: manifests that add something to another one, their `subject` (OCI image spec 1.1, "Guidelines for Artifact
 * Usage"). An artifact has a type, blobs as its layers, and annotations, which the list of its subject repeats.
 */
import * as z from 'zod';
import { ErrorCodes, ObdError } from '../errors.js';
import { sha256Of } from './digest.js';
import { check, corrupt, mediaType } from './document.js';
import { type Descriptor, descriptor, parseManifest } from './manifest.js';
import { OCI_EMPTY, OCI_MANIFEST } from './media-types.js';
import {
  ANNOTATION_BYTES_MAX,
  annotationBytes,
  artifactAnnotations,
  type ReferrerDescriptor,
} from './referrer.js';

/** The config of an artifact that needs none. */
export const EMPTY_CONFIG_BYTES: Uint8Array = Buffer.from('{}');
export const EMPTY_CONFIG: Descriptor = {
  mediaType: OCI_EMPTY,
  digest: sha256Of(EMPTY_CONFIG_BYTES),
  size: EMPTY_CONFIG_BYTES.length,
};

export interface Artifact {
  readonly artifactType: string;
  readonly subject: Descriptor;
  readonly layers: readonly Descriptor[];
  /** At most ANNOTATION_BYTES_MAX. */
  readonly annotations: Readonly<Record<string, string>>;
}

export interface BuiltArtifact {
  readonly bytes: Uint8Array;
  /** The manifest's entry in the list of its subject. */
  readonly referrer: ReferrerDescriptor;
}

const artifactFields = z.object({
  artifactType: mediaType.optional(),
  subject: descriptor,
  annotations: artifactAnnotations,
});

/**
 * Returns the manifest of an artifact; equal arguments give equal bytes.
 *
 * @throws {ObdError} `InvalidArgument` for annotations that are too long to be listed.
 */
export function buildArtifact(artifact: Artifact): BuiltArtifact {
  const { artifactType, subject, layers, annotations } = artifact;
  const length = annotationBytes(annotations);
  if (length > ANNOTATION_BYTES_MAX) {
    const problem = `its annotations have ${length} bytes, and the limit is ${ANNOTATION_BYTES_MAX}`;
    const message = `Cannot make an artifact of type ${artifactType}: ${problem}`;
    throw new ObdError(ErrorCodes.InvalidArgument, message);
  }
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType,
    config: EMPTY_CONFIG,
    layers,
    subject: { mediaType: subject.mediaType, digest: subject.digest, size: subject.size },
    annotations,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const described = { mediaType: OCI_MANIFEST, digest: sha256Of(bytes), size: bytes.length };
  return { bytes, referrer: { ...described, artifactType, annotations } };
}

/**
 * Parses the manifest of an artifact.
 *
 * @param bytes - As stored. At most MANIFEST_BYTES_MAX.
 * @param servedAs - The media type that the server stated.
 * @throws {ObdError} `Corrupt` if it is malformed or has no subject; as parseManifest().
 */
export function parseArtifact(
  bytes: Uint8Array,
  servedAs: string | undefined,
  label: string,
): Artifact {
  const parsed = parseManifest(bytes, servedAs, label);
  if (parsed.kind !== 'image') throw corrupt(label, 'it is an index, and no artifact');
  const { config, layers } = parsed.manifest;
  const { artifactType, subject, annotations } = check(artifactFields, parsed.manifest, label);
  return { artifactType: artifactType ?? config.mediaType, subject, layers, annotations };
}

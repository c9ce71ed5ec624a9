/**
 * Goal: a built artifact can be parsed again, and a malformed one is refused.
 * Method: artifacts of obd-ts and of other programs, each broken in one way.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { buildArtifact, EMPTY_CONFIG, parseArtifact } from './artifact.js';
import { sha256Of } from './digest.js';
import { LAYERS_MAX } from './manifest.js';
import { OCI_INDEX, OCI_MANIFEST } from './media-types.js';
import { ANNOTATION_BYTES_MAX } from './referrer.js';

const digest = `sha256:${'ab'.repeat(32)}`;
const artifact = {
  artifactType: 'application/vnd.example.one',
  subject: { mediaType: OCI_MANIFEST, digest, size: 7 },
  layers: [{ mediaType: 'application/x', digest, size: 9 }],
  annotations: { 'a.b': 'c' },
};
const good = JSON.parse(Buffer.from(buildArtifact(artifact).bytes).toString());
const parse = (change: object) =>
  parseArtifact(Buffer.from(JSON.stringify({ ...good, ...change })), OCI_MANIFEST, 'it');
const CORRUPT = { code: ErrorCodes.Corrupt };

test('builds a manifest with an empty config, and its entry for the list', () => {
  const { bytes, referrer } = buildArtifact({
    ...artifact,
    subject: { ...artifact.subject, annotations: { not: 'kept' } },
  });
  assert.deepEqual(referrer, {
    mediaType: OCI_MANIFEST,
    digest: sha256Of(bytes),
    size: bytes.length,
    artifactType: artifact.artifactType,
    annotations: artifact.annotations,
  });
  assert.equal(EMPTY_CONFIG.digest, sha256Of(Buffer.from('{}')));
  assert.deepEqual(good.config, {
    mediaType: 'application/vnd.oci.empty.v1+json',
    digest: 'sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
    size: 2,
  });
  assert.deepEqual(parseArtifact(bytes, undefined, 'it'), artifact);
});

test('takes the type from the config, as older programs state it', () => {
  const config = { ...EMPTY_CONFIG, mediaType: 'application/old' };
  const { artifactType, annotations } = parse({
    artifactType: undefined,
    annotations: undefined,
    config,
  });
  assert.equal(artifactType, 'application/old');
  assert.deepEqual(annotations, {});
});

test('refuses an artifact that is malformed', () => {
  for (const change of [
    { subject: undefined },
    { subject: { ...artifact.subject, digest: 'sha256:..' } },
    { subject: { ...artifact.subject, size: -1 } },
    { artifactType: 'x\n' },
    { annotations: { a: 1 } },
    { annotations: { a: 'x'.repeat(ANNOTATION_BYTES_MAX) } },
    { layers: [{ ...artifact.layers[0], size: 1.5 }] },
    { manifests: [] },
  ]) {
    assert.throws(() => parse(change), CORRUPT, JSON.stringify(change).slice(0, 100));
  }
  assert.throws(() => parse({ layers: Array(LAYERS_MAX + 1).fill(artifact.layers[0]) }), {
    code: ErrorCodes.Unsupported,
  });
  const index = JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] });
  assert.throws(() => parseArtifact(Buffer.from(index), undefined, 'it'), CORRUPT);
});

test('builds no artifact with annotations that cannot be listed', () => {
  const annotations = { a: 'x'.repeat(ANNOTATION_BYTES_MAX) };
  assert.throws(() => buildArtifact({ ...artifact, annotations }), {
    code: ErrorCodes.InvalidArgument,
    message: /16385 bytes, and the limit is 16384/,
  });
});

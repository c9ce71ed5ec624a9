/**
 * Goal: each parsed document keeps the rules in the module's header, and any other document is refused.
 * Method: documents in OCI's and Docker's forms, each broken in one way.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { sha256Of } from './digest.js';
import {
  INDEX_ENTRIES_MAX,
  LAYERS_MAX,
  MANIFEST_BYTES_MAX,
  parseImageConfig,
  parseLayoutIndex,
  parseManifest,
} from './manifest.js';
import { DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from './media-types.js';

const DIGEST = `sha256:${'ab'.repeat(32)}`;
const blob = { mediaType: 'application/x', digest: DIGEST, size: 7 };
const image = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: blob, layers: [blob, blob] };
const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [blob] };

const parse = (json: unknown, servedAs?: string) =>
  parseManifest(Buffer.from(JSON.stringify(json)), servedAs, 'it');
const CORRUPT = { code: ErrorCodes.Corrupt };
const UNSUPPORTED = { code: ErrorCodes.Unsupported };

test('parses manifests and indexes of OCI and Docker', () => {
  const docker = parse({ ...image, mediaType: DOCKER_MANIFEST }, DOCKER_MANIFEST);
  assert.equal(docker.kind, 'image');
  assert.equal(parse({ ...index, mediaType: DOCKER_INDEX }).kind, 'index');
  const bytes = Buffer.from(JSON.stringify(image));
  assert.deepEqual(parseManifest(bytes, OCI_MANIFEST, 'it').descriptor, {
    mediaType: OCI_MANIFEST,
    digest: sha256Of(bytes),
    size: bytes.length,
  });
});

test('takes a missing or general media type from the other sources', () => {
  const { mediaType: _, ...plain } = image;
  const { mediaType: __, ...plainIndex } = index;
  assert.equal(parse(plain).descriptor.mediaType, OCI_MANIFEST);
  assert.equal(parse(plain, DOCKER_MANIFEST).descriptor.mediaType, DOCKER_MANIFEST);
  assert.equal(parse(plainIndex, 'application/json').descriptor.mediaType, OCI_INDEX);
});

test('keeps unknown fields', () => {
  const found = parse({ ...image, subject: { x: 1 }, layers: [{ ...blob, urls: ['u'] }] });
  assert.ok(found.kind === 'image');
  assert.deepEqual(found.manifest['subject'], { x: 1 });
  assert.deepEqual(found.manifest.layers[0]?.['urls'], ['u']);
});

test('refuses a document of two kinds or two media types', () => {
  assert.throws(() => parse({ ...image, manifests: [] }), CORRUPT);
  assert.throws(() => parse({ ...index, layers: [] }), CORRUPT);
  assert.throws(() => parse(image, DOCKER_MANIFEST), CORRUPT);
  assert.throws(() => parse({ ...index, mediaType: OCI_MANIFEST }), CORRUPT);
});

test('reports invalid JSON and wrong fields as corrupt, with their place', () => {
  for (const text of ['', '[]', 'null', '{', '"x"']) {
    assert.throws(() => parseManifest(Buffer.from(text), undefined, 'it'), CORRUPT, text);
  }
  assert.throws(() => parseManifest(Buffer.from([0x7b, 0xff, 0x7d]), undefined, 'it'), CORRUPT);
  for (const wrong of [
    { ...blob, digest: 'sha256:AB' },
    { ...blob, digest: '../../etc/passwd' },
    { ...blob, size: -1 },
    { ...blob, size: 1.5 },
    { ...blob, size: 2 ** 60 },
    { ...blob, mediaType: 'x' },
    { ...blob, annotations: { a: 1 } },
    {},
  ]) {
    const message = /"layers\.1/;
    assert.throws(() => parse({ ...image, layers: [blob, wrong] }), { ...CORRUPT, message });
  }
});

test('reports documents beyond the limits as unsupported', () => {
  const many = (count: number) => Array.from({ length: count }, () => blob);
  assert.ok(parse({ ...image, layers: many(LAYERS_MAX) }));
  assert.throws(() => parse({ ...image, layers: many(LAYERS_MAX + 1) }), UNSUPPORTED);
  assert.throws(() => parse({ ...index, manifests: many(INDEX_ENTRIES_MAX + 1) }), UNSUPPORTED);
  const large = Buffer.alloc(MANIFEST_BYTES_MAX + 1, ' ');
  assert.throws(() => parseManifest(large, undefined, 'it'), UNSUPPORTED);
  assert.throws(
    () => parse({ ...image, config: { ...blob, digest: `sha512:${'0'.repeat(128)}` } }),
    {
      ...UNSUPPORTED,
      message: /sha512/,
    },
  );
});

test('reports schema 1 and documents of other kinds as unsupported', () => {
  assert.throws(() => parse({ schemaVersion: 1, fsLayers: [] }), {
    ...UNSUPPORTED,
    message: /obsolete; pull and push/,
  });
  assert.throws(() => parse({ ...image, mediaType: 'application/vnd.x+json' }), UNSUPPORTED);
});

test('parses configs and layout indexes', () => {
  const rootfs = { type: 'layers', diff_ids: [DIGEST] };
  const config = { os: 'linux', architecture: 'amd64', rootfs, history: [] };
  const parsed = parseImageConfig(Buffer.from(JSON.stringify(config)), 'it');
  assert.deepEqual(parsed, config);
  const wrong = { ...config, rootfs: { ...rootfs, diff_ids: ['x'] } };
  assert.throws(() => parseImageConfig(Buffer.from(JSON.stringify(wrong)), 'it'), CORRUPT);
  const layout = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [blob] }));
  assert.equal(parseLayoutIndex(layout, 'it').manifests.length, 1);
});

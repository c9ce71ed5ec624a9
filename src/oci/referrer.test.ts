/**
 * Goal: a list of referrers gives the entries that obd-ts can use, and keeps the others unchanged.
 * Method: indexes with entries of other programs, and hostile ones.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { INDEX_ENTRIES_MAX } from './manifest.js';
import { OCI_INDEX, OCI_MANIFEST } from './media-types.js';
import {
  ANNOTATION_BYTES_MAX,
  encodeReferrerList,
  fallbackTagOf,
  parseReferrerList,
} from './referrer.js';

const digest = `sha256:${'ab'.repeat(32)}`;
const entry = { mediaType: OCI_MANIFEST, digest, size: 7, artifactType: 'application/x' };
const bytesOf = (json: unknown) => Buffer.from(JSON.stringify(json));
const parse = (manifests: unknown, more: object = {}) =>
  parseReferrerList(
    bytesOf({ schemaVersion: 2, mediaType: OCI_INDEX, manifests, ...more }),
    undefined,
    'it',
  );

test('gives each entry with its type and annotations', () => {
  const annotations = { 'a.b': 'c', ['__proto__']: 'd' };
  const { listed } = parse([
    { ...entry, annotations, platform: { os: 'linux' } },
    { ...entry, artifactType: undefined },
  ]);
  assert.deepEqual(listed[0]?.referrer, { ...entry, annotations: { 'a.b': 'c' } });
  assert.deepEqual(listed[1]?.referrer, { ...entry, artifactType: '', annotations: {} });
});

test('keeps entries and fields that it cannot use', () => {
  const foreign = [
    { ...entry, digest: `sha512:${'0'.repeat(128)}` },
    { ...entry, digest: 'sha256:../..' },
    { ...entry, size: -1 },
    { ...entry, size: 1e12 },
    { ...entry, artifactType: 'a\nb' },
    { ...entry, annotations: { a: 'é'.repeat(ANNOTATION_BYTES_MAX / 2) } },
    { ...entry, annotations: { a: 1 } },
    null,
    7,
  ];
  const list = parse(foreign, { annotations: { own: 'text' } });
  assert.ok(list.listed.every(({ referrer }) => referrer === undefined));
  assert.deepEqual(JSON.parse(Buffer.from(encodeReferrerList(list, 'it')).toString()), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    annotations: { own: 'text' },
    manifests: foreign,
  });
});

test('refuses what is no index, and too long a list', () => {
  const corrupt = { code: ErrorCodes.Corrupt };
  assert.throws(() => parse({}), corrupt);
  assert.throws(() => parse([], { layers: [] }), corrupt);
  assert.throws(() => parseReferrerList(bytesOf([]), undefined, 'it'), corrupt);
  const image = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: entry, layers: [] };
  assert.throws(() => parseReferrerList(bytesOf(image), OCI_MANIFEST, 'it'), corrupt);
  assert.throws(() => parse(Array(INDEX_ENTRIES_MAX + 1).fill(entry)), {
    code: ErrorCodes.Unsupported,
  });
});

test('names the fall-back tag', () => {
  assert.equal(fallbackTagOf(digest), `sha256-${'ab'.repeat(32)}`);
});

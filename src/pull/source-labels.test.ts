/**
 * Goal: the labels equal those of containerd's own client, for every kind of document that an index or a manifest may
 * list.
 * Method: rows of media types with containerd's names for them; source labels with earlier values.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseReference } from '../oci/reference.js';
import { childLabels, isLayer, sourceLabels } from './source-labels.js';

const OCI = 'application/vnd.oci.image';
const DOCKER = 'application/vnd.docker';

describe('childLabels', () => {
  test('numbers manifests, layers and others apart', () => {
    const types = [
      `${OCI}.manifest.v1+json`,
      `${OCI}.layer.v1.tar+gzip`,
      `${DOCKER}.distribution.manifest.v2+json`,
      'application/vnd.in-toto+json',
      `${OCI}.layer.v1.tar`,
      `${OCI}.index.v1+json`,
    ];
    const children = types.map((mediaType, i) => ({ mediaType, digest: `sha256:${i}`, size: 1 }));
    assert.deepEqual(childLabels(children), {
      'containerd.io/gc.ref.content.m.0': 'sha256:0',
      'containerd.io/gc.ref.content.l.0': 'sha256:1',
      'containerd.io/gc.ref.content.m.1': 'sha256:2',
      'containerd.io/gc.ref.content.0': 'sha256:3',
      'containerd.io/gc.ref.content.l.1': 'sha256:4',
      'containerd.io/gc.ref.content.1': 'sha256:5',
    });
  });

  for (const [mediaType, expected] of [
    [`${OCI}.layer.v1.tar+zstd`, true],
    [`${OCI}.layer.nondistributable.v1.tar`, true],
    [`${DOCKER}.image.rootfs.diff.tar.gzip`, true],
    [`${DOCKER}.image.rootfs.foreign.diff.tar.gzip`, true],
    [`${OCI}.config.v1+json`, false],
    ['application/octet-stream', false],
  ] as const) {
    test(`${mediaType} is ${expected ? 'a' : 'no'} layer`, () => {
      assert.equal(isLayer({ mediaType, digest: 'sha256:0', size: 1 }), expected);
    });
  }
});

describe('sourceLabels', () => {
  const PREFIX = 'containerd.io/distribution.source.';

  for (const [reference, earlier, key, value] of [
    ['localhost:5000/team/app:1', {}, 'localhost', 'team/app'],
    ['debian', {}, 'docker.io', 'library/debian'],
    ['[::1]:5000/app', {}, '::1', 'app'],
    ['ghcr.io/b', { [`${PREFIX}ghcr.io`]: 'a,c' }, 'ghcr.io', 'a,b,c'],
    ['ghcr.io/a', { [`${PREFIX}ghcr.io`]: 'a,c' }, 'ghcr.io', 'a,c'],
    ['ghcr.io/a', { [`${PREFIX}docker.io`]: 'x' }, 'ghcr.io', 'a'],
    ['ghcr.io/a', { [`${PREFIX}ghcr.io`]: '' }, 'ghcr.io', 'a'],
  ] as const) {
    test(`${reference} after ${JSON.stringify(earlier)}`, () => {
      const labels = sourceLabels(earlier, parseReference(reference));
      assert.deepEqual(labels, { [`${PREFIX}${key}`]: value });
    });
  }

  test('are left out where they would be too long for containerd', () => {
    const long = { [`${PREFIX}ghcr.io`]: 'x'.repeat(4080) };
    assert.deepEqual(sourceLabels(long, parseReference('ghcr.io/abc')), {});
  });
});

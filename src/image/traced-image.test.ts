/**
 * Goal: the traced image is the image and one more layer, as overlaybd's record-trace makes it.
 * Method: a manifest and a config with keys that we do not know; a load order whose runs are neighbours in part.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, orderOfPages } from '../../test/support/load-orders.js';
import { ErrorCodes } from '../errors.js';
import { parseTrace } from '../layers/read-trace.js';
import type { ImageConfig, ImageManifest } from '../oci/manifest.js';
import { checkTraceable, tracedImage } from './traced-image.js';

const layer = (n: number, annotations = {}) => ({
  ...{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(n), size: 9 },
  annotations,
});
const manifest: ImageManifest = {
  schemaVersion: 2,
  mediaType: 'application/vnd.oci.image.manifest.v1+json',
  config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(9), size: 3 },
  layers: [layer(1), layer(2)],
  annotations: { title: 'app', 'dev.obd-ts.load-order': `${digestOf(5)}@7` },
};
const config: ImageConfig = {
  ...{ os: 'linux', architecture: 'amd64', extra: [1], created: '2001-01-01T00:00:00Z' },
  rootfs: { type: 'layers', diff_ids: [digestOf(1), digestOf(2)] },
  history: [{ created_by: 'one' }, { created_by: 'two' }],
};
const parts = { manifest, config, fileSystem: 'ext4' };
const created = new Date('2026-11-30T12:00:00Z');

test('a traced image has the layers of the image below its trace', () => {
  const made = tracedImage(parts, orderOfPages([7, 8, 3]), created);
  const { annotations, ...written } = JSON.parse(made.manifest.toString());
  const { descriptor } = made.layer;
  assert.deepEqual(written, {
    ...{ schemaVersion: 2, mediaType: manifest.mediaType },
    config: made.config.descriptor,
    layers: [...manifest.layers, descriptor],
  });
  assert.deepEqual(annotations, { title: 'app' });
  const time = created.toISOString();
  assert.deepEqual(JSON.parse(made.config.bytes.toString()), {
    ...config,
    created: time,
    rootfs: { type: 'layers', diff_ids: [digestOf(1), digestOf(2), descriptor.digest] },
    history: [
      { created: time, created_by: 'Acceleration Layer' },
      ...(config['history'] as object[]),
    ],
  });
  const trace = made.layer.bytes.subarray(512, 512 + 24 + 2 * 24);
  assert.deepEqual(parseTrace(trace, { label: 'trace' }), [
    { layer: 0, offset: 7 * 4096, length: 2 * 4096 },
    { layer: 0, offset: 3 * 4096, length: 4096 },
  ]);
});

test('an image with a trace layer, or with as many layers as there may be, is refused', () => {
  const key = 'containerd.io/snapshot/overlaybd/acceleration-layer';
  const layers = [layer(1), layer(2, { [key]: 'yes' })];
  const refused = { code: ErrorCodes.FailedPrecondition };
  assert.throws(() => checkTraceable({ ...manifest, layers }, 'x'), refused);
  const many = Array.from({ length: 255 }, (_, n) => layer(n));
  assert.throws(() => checkTraceable({ ...manifest, layers: many }, 'x'), refused);
  checkTraceable(manifest, 'x');
});

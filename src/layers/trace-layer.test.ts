/**
 * Goal: the layer is the tar that overlaybd's tools and containerd unpack, with the annotations that its snapshotter looks for.
 * Method: tar(1), and our own reader of traces. overlaybd's test files have no such layer to compare with.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { sha256Of } from '../oci/digest.js';
import { parseTrace } from './read-trace.js';
import { traceLayer } from './trace-layer.js';

const READS = [
  { layer: 1, offset: 8192, length: 4096 },
  { layer: 0, offset: 0, length: 12_288 },
];

test('traceLayer() writes a tar with one file, which has the reads', () => {
  const { bytes, descriptor } = traceLayer(READS, 'ext4');
  const tar = (...options: string[]) =>
    execFileSync('tar', [...options, '-f', '-'], { input: bytes });
  const listed = tar('--numeric-owner', '--utc', '-tv').toString();
  assert.match(listed, /^-r--r--r-- 0\/0 +72 1970-01-01 00:00 trace\n$/);
  assert.deepEqual(parseTrace(tar('-xO'), { label: 'trace' }), READS);
  assert.equal(bytes.length % 512, 0);
  const digest = sha256Of(bytes);
  const prefix = 'containerd.io/snapshot/overlaybd';
  assert.deepEqual(descriptor, {
    ...{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest, size: bytes.length },
    annotations: {
      [`${prefix}/version`]: '0.1.0',
      [`${prefix}/blob-digest`]: digest,
      [`${prefix}/blob-size`]: String(bytes.length),
      [`${prefix}/acceleration-layer`]: 'yes',
      [`${prefix}/blob-fs-type`]: 'ext4',
    },
  });
});

test('traceLayer() gives the same bytes each time, and names no unknown file system', () => {
  const [one, other] = [traceLayer(READS, ''), traceLayer(READS, '')];
  assert.ok(one.bytes.equals(other.bytes));
  assert.equal(Object.keys(one.descriptor.annotations ?? {}).length, 4);
});

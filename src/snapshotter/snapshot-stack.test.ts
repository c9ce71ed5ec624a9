/**
 * Goal: no lazy layer is read from a registry that its image may not be from.
 * Method: stacks of every kind, from one registry and from two.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Layer, Snapshot } from './snapshot.js';
import { checkOneRegistry, stackOf } from './snapshot-stack.js';

const from = (host: string): Layer => ({
  type: 'blocks',
  lower: {
    digest: `sha256:${'a'.repeat(64)}`,
    size: 1,
    repoBlobUrl: `https://${host}/v2/app/blobs`,
  },
  fileSystem: 'ext4',
});
const LOCAL: Layer = { type: 'blocks', lower: {}, fileSystem: 'ext4', file: 'overlaybd.commit' };
const TRACE: Layer = { type: 'trace', lower: { kind: 'overlaybd-trace' }, fileSystem: 'ext4' };
const FILES: Layer = { type: 'files' };

/** @param layers - Bottom first. */
function check(...layers: readonly Layer[]): void {
  const snapshots = layers.map(
    (layer, i): Snapshot => ({
      id: i + 1,
      name: `${i}`,
      parent: i === 0 ? '' : `${i - 1}`,
      kind: 'committed',
      labels: {},
      createdAtMs: 0,
      updatedAtMs: 0,
      usage: { sizeBytes: 0, inodes: 0 },
      layer,
      chainId: undefined,
      namespaces: [],
    }),
  );
  checkOneRegistry(stackOf(snapshots.toReversed()));
}

test('below a downloaded layer, lazy layers are from one registry', () => {
  check();
  check(FILES);
  check(from('a'), from('b'));
  check(from('a'), LOCAL, from('b'));
  check(from('a'), from('b'), TRACE);
  check(from('a'), from('a'), LOCAL, FILES);
  for (const layers of [
    [from('a'), from('b'), LOCAL],
    [from('a'), LOCAL, from('b'), LOCAL, TRACE],
    [from('a'), from('a:444'), LOCAL, FILES],
  ]) {
    assert.throws(() => check(...layers), /several registries, a:443, (?:b:443|a:444)/);
  }
});

/**
 * Goal: chain IDs equal those of other tools, and a rewritten config differs in its diff IDs only.
 * Method: a chain computed with sha256sum by hand, and a config with unknown fields.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chainIds, withDiffIds } from './image-identity.js';

const A = `sha256:${'a'.repeat(64)}`;
const B = `sha256:${'b'.repeat(64)}`;

test('chain IDs', () => {
  assert.deepEqual(chainIds([]), []);
  // printf 'sha256:aaa...a sha256:bbb...b' | sha256sum, and so on.
  assert.deepEqual(chainIds([A, B, A]), [
    A,
    'sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c',
    'sha256:406364a4bd8d39df8107071d4494fa73814420337124657ec5999b072e5d3352',
  ]);
});

test('withDiffIds() keeps all other fields and their order', () => {
  const config = {
    created: '2020-01-01T00:00:00Z',
    rootfs: { type: 'layers', diff_ids: [A] },
    'x.unknown': { deep: [1, null] },
  };
  assert.equal(
    withDiffIds(config, [B]).toString(),
    `{"created":"2020-01-01T00:00:00Z","rootfs":{"type":"layers","diff_ids":["${B}"]},"x.unknown":{"deep":[1,null]}}`,
  );
});

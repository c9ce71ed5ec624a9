/**
 * Goal: pages are the same if layer and number are, however two orders count layers and cut runs.
 * Method: two small lists of pages.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../../test/support/load-orders.js';
import { sharedPages } from './shared-pages.js';

const [low, high] = [1, 2].map((n) => ({ digest: digestOf(n) }));

test('sharedPages() counts pages by the digest of their layer', () => {
  const one = {
    layers: [low!, high!],
    runs: [
      { layer: 0, leaf: 10, count: 5 },
      { layer: 1, leaf: 12, count: 1 },
    ],
  };
  const other = {
    layers: [high!, low!, { digest: digestOf(3) }],
    runs: [
      { layer: 1, leaf: 13, count: 9 },
      { layer: 0, leaf: 11, count: 1 },
      { layer: 1, leaf: 10, count: 1 },
      { layer: 2, leaf: 12, count: 1 },
    ],
  };
  assert.equal(sharedPages(one, other), 3);
  assert.equal(sharedPages(other, one), 3);
  assert.equal(sharedPages(one, one), 6);
  assert.equal(sharedPages(one, { layers: [], runs: [] }), 0);
});

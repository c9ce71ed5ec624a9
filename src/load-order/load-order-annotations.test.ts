/**
 * Goal: annotations that anyone may write give a count of starts, or none.
 * Method: texts of a registry.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STARTS_MAX } from './load-order.js';
import { parseStarts } from './load-order-annotations.js';

test('parseStarts() takes the counts that a document can have', () => {
  for (const starts of [0, 1, STARTS_MAX]) assert.equal(parseStarts(String(starts)), starts);
  for (const text of [undefined, '', '1e999', 'Infinity', `${STARTS_MAX + 1}`, '-1', '1.5', ' 1'])
    assert.equal(parseStarts(text), undefined, text);
});

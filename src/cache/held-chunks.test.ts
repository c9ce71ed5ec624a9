/**
 * Goal: what is held is bounded in bytes, and is what was handed in.
 * Method: chunks that are parts of one larger answer, as those of a fetch are.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHUNK_BYTES } from './chunk-set.js';
import { HeldChunks } from './held-chunks.js';

test('a chunk is held as a copy, which keeps nothing of the answer it came in', () => {
  const held = new HeldChunks();
  const answer = Buffer.alloc(16 * CHUNK_BYTES, 7);
  const blob = { registry: 'registry.example', digest: 'sha256:a' };
  held.hold(blob, 3, answer.subarray(0, CHUNK_BYTES));
  answer.fill(0);
  const found = held.find(blob, 3);
  assert.equal(found?.buffer.byteLength, CHUNK_BYTES);
  assert.ok(found?.every((byte) => byte === 7));
});

/**
 * Goal: the chunks in memory are bounded in bytes, and are the added ones.
 * Method: chunks that are parts of one larger answer, as those of a fetch are.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { OverflowChunks } from './overflow-chunks.js';

test('add() copies a chunk, and does not keep the whole answer in memory', () => {
  const chunks = new OverflowChunks();
  const answer = Buffer.alloc(16 * CHUNK_BYTES, 7);
  const blob = { origin: 'registry.example', digest: 'sha256:a', sizeBytes: 1 << 20 };
  chunks.add(blob, 3, answer.subarray(0, CHUNK_BYTES));
  answer.fill(0);
  const found = chunks.find(blob, 3);
  assert.equal(found?.buffer.byteLength, CHUNK_BYTES);
  assert.ok(found?.every((byte) => byte === 7));
});

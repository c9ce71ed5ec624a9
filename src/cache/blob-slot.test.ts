/**
 * Goal: a slot gives the set that was written to it, or none.
 * Method: random sets there and back; every byte of a slot changed in turn; slots of other blobs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { encodeSlot, PAGE_BYTES, parseSlot, slotBytes } from './blob-slot.js';
import { ChunkSet } from './chunk-set.js';

const blobOf = (chunks: number, hex = 'a') => ({
  origin: 'registry.example',
  digest: `sha256:${hex.repeat(64)}`,
  sizeBytes: chunks * CHUNK_BYTES,
});

test('parseSlot() returns the encoded set and its sequence number', () => {
  const sets = fc.nat(3000).chain((chunks) =>
    fc.record({
      chunks: fc.constant(chunks),
      members: fc.array(fc.nat(Math.max(0, chunks - 1)), { maxLength: chunks }),
      sequence: fc.maxSafeNat(),
    }),
  );
  fc.assert(
    fc.property(sets, ({ chunks, members, sequence }) => {
      const set = new ChunkSet(chunks);
      for (const chunk of members) set.add(chunk);
      const slot = encodeSlot(blobOf(chunks), sequence, set.bits);
      assert.equal(slot.length, slotBytes(chunks));
      assert.equal(slot.length % PAGE_BYTES, 0);
      const found = new ChunkSet(chunks);
      assert.equal(parseSlot(slot, blobOf(chunks), found), sequence);
      assert.deepEqual(found.bits, set.bits);
      assert.equal(found.count, new Set(members).size);
    }),
  );
});

test('parseSlot() rejects a slot with any byte changed', () => {
  const set = new ChunkSet(100);
  set.add(42);
  const slot = encodeSlot(blobOf(100), 7, set.bits);
  const used = 64 + set.bits.length + 4;
  for (let at = 0; at < used; at++) {
    const damaged = Buffer.from(slot);
    damaged[at]! ^= 1 << (at % 8);
    const found = new ChunkSet(100);
    assert.equal(parseSlot(damaged, blobOf(100), found), undefined, `byte ${at}`);
    assert.equal(found.count, 0);
  }
});

test('parseSlot() rejects the slot of another blob, or of another size', () => {
  const slot = encodeSlot(blobOf(100), 7, new ChunkSet(100).bits);
  assert.equal(parseSlot(slot, blobOf(100, 'b'), new ChunkSet(100)), undefined);
  const larger = { ...blobOf(100), sizeBytes: 99 * CHUNK_BYTES + 1 };
  assert.equal(parseSlot(slot, larger, new ChunkSet(100)), undefined);
});

test('parseSlot() rejects a bit past the last chunk, even with a right CRC', () => {
  const bits = new ChunkSet(101).bits;
  bits[12] = 1 << 6;
  assert.equal(
    parseSlot(encodeSlot(blobOf(101), 7, bits), blobOf(101), new ChunkSet(101)),
    undefined,
  );
});

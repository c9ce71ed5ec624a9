/**
 * Goal: names hash as they do in e2fsprogs and the kernel.
 * Method: vectors printed by `debugfs -R 'dx_hash -h half_md4 [-s SEED] NAME'`, which takes bytes as signed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NameHash } from './name-hash.js';

const SEED = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const NO_SEED = Buffer.alloc(16);
const VECTORS: ReadonlyArray<readonly [name: string, seeded: number, unseeded: number]> = [
  ['abc', 0xb1cd624a, 0xd196a868],
  ['file.txt', 0xd3b55800, 0x64fbe4fe],
  ['x'.repeat(100), 0xaac23dcc, 0x23aa98ac],
  ['café', 0x5de1249a, 0xfb9c5e5c],
];

test('hashes as e2fsprogs does, with and without a seed', () => {
  for (const [name, seeded, unseeded] of VECTORS) {
    assert.equal(new NameHash(SEED, false).of(Buffer.from(name)), seeded, name);
    assert.equal(new NameHash(NO_SEED, false).of(Buffer.from(name)), unseeded, name);
  }
});

test('signs matter beyond ASCII only', () => {
  for (const [name, seeded] of VECTORS.slice(0, 3)) {
    assert.equal(new NameHash(SEED, true).of(Buffer.from(name)), seeded, name);
  }
  assert.notEqual(new NameHash(SEED, true).of(Buffer.from('café')), 0x5de1249a);
});

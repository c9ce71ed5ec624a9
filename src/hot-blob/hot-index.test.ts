/**
 * Goal: an index is read as it was written, and one that breaks any rule of docs/formats/hot-blob.md is refused.
 * Method: each rule broken by itself, each byte of an index changed, and indexes of noise with right CRCs.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededRandom } from '../../test/support/cache-crashing-file.js';
import { ErrorCodes, hasCode } from '../errors.js';
import { rawCrc32c } from '../zfile/raw-crc32c.js';
import { encodeHotIndex, HOT_PAGES_MAX, type HotIndex, parseHotIndex } from './hot-index.js';

const FILE = { label: 'hot' };
const name = (digit: string) => `sha256:${digit.repeat(64)}`;

function indexOf(runs: readonly number[], leafedBytes: readonly number[]): HotIndex {
  const pages = runs.reduce((sum, value, i) => (i % 3 === 2 ? sum + value : sum), 0);
  return {
    layers: leafedBytes.map((bytes, i) => {
      return { digest: name(`${i}`), root: name('abc'[i % 3]!), leafedBytes: bytes };
    }),
    runs: Uint32Array.from(runs),
    crcs: Uint32Array.from({ length: pages }, (_, i) => Math.imul(i + 1, 2654435761)),
    pages,
  };
}

const valid = indexOf([1, 2, 3, 0, 5, 1, 1, 0, 2, 0, 0, 4], [6 * 4096, 5 * 4096 - 1]);

/** Makes the CRC of the index right. */
function sealed(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(rawCrc32c(bytes.subarray(0, -4), 0), bytes.length - 4);
  return bytes;
}

describe('parseHotIndex()', () => {
  test('reads what encodeHotIndex() wrote', () => {
    assert.deepEqual(parseHotIndex(encodeHotIndex(valid), FILE), valid);
  });

  test('reads the largest index', () => {
    const runs = Array.from({ length: HOT_PAGES_MAX }, (_, i) => [0, 2 * i, 1]).flat();
    const index = indexOf(runs, [2 * HOT_PAGES_MAX * 4096]);
    const bytes = encodeHotIndex(index);
    assert.ok(bytes.length < 600_000);
    assert.deepEqual(parseHotIndex(bytes, FILE), index);
  });

  const bytes = encodeHotIndex(valid);
  const refusals: readonly (readonly [string, (bytes: Buffer) => unknown, RegExp])[] = [
    ['another magic', (b) => b.write('X'), /no hot blob/],
    ['no pages', (b) => b.writeUInt32LE(0, 24), /0 pages/],
    ['too many pages', (b) => b.writeUInt32LE(HOT_PAGES_MAX + 1, 24), /pages/],
    ['more runs than pages', (b) => b.writeUInt32LE(11, 20), /11 runs of 10/],
    ['too many layers', (b) => b.writeUInt32LE(257, 16), /257 layers/],
    ['another count of layers', (b) => b.writeUInt32LE(3, 16), /its head says/],
    ['bytes in the unused part of the head', (b) => b.writeUInt32LE(1, 28), /zero/],
    ['the same layer twice', (b) => b.copy(b, 104, 32, 64), /twice/],
    ['an empty layer', (b) => b.writeBigUInt64LE(0n, 96), /0 bytes/],
    ['a layer whose leaves pass 32 bits', (b) => b.writeBigUInt64LE(2n ** 44n + 1n, 96), /bytes/],
    ['a run of a layer behind the last', (b) => b.writeUInt32LE(2, 176), /layer 2 of 2/],
    ['an empty run', (b) => b.writeUInt32LE(0, 184), /empty/],
    ['a run past the end of its layer', (b) => b.writeUInt32LE(4, 180), /passes the end/],
    ['runs of fewer pages', (b) => b.writeUInt32LE(2, 184), /runs of 9 pages/],
    ['a page in two runs', (b) => b.writeUInt32LE(3, 192), /two runs/],
  ];
  for (const [title, change, message] of refusals) {
    test(`refuses ${title}`, () => {
      const changed = Buffer.from(bytes);
      change(changed);
      const parse = () => parseHotIndex(sealed(changed), FILE);
      assert.throws(parse, { code: ErrorCodes.Corrupt, message });
    });
  }

  test('refuses a later version as unsupported', () => {
    const changed = Buffer.from(bytes);
    changed.writeUInt32LE(2, 8);
    const parse = () => parseHotIndex(sealed(changed), FILE);
    assert.throws(parse, { code: ErrorCodes.Unsupported, message: /version 2/ });
  });

  test('refuses pages that need too many nodes, and a layer without a run', () => {
    const runs = Array.from({ length: 8200 }, (_, i) => [0, 128 * i, 1]).flat();
    const index = indexOf(runs, [2 ** 40]);
    const refused = { code: ErrorCodes.InvalidArgument };
    assert.throws(() => encodeHotIndex(index), { ...refused, message: /nodes/ });
    const unused = indexOf([0, 0, 1], [4096, 4096]);
    assert.throws(() => encodeHotIndex(unused), { ...refused, message: /no run/ });
  });

  test('refuses every change of a byte, and every other length', () => {
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 0x10;
      assert.throws(
        () => parseHotIndex(changed, FILE),
        ({ code }) => code !== undefined,
        `${at}`,
      );
      const cut = () => parseHotIndex(bytes.subarray(0, at), FILE);
      assert.throws(cut, { code: ErrorCodes.Corrupt }, `cut at ${at}`);
    }
    const longer = Buffer.concat([bytes, Buffer.alloc(1)]);
    assert.throws(() => parseHotIndex(longer, FILE), { code: ErrorCodes.Corrupt });
  });

  test('returns only indexes that could be written, for any bytes with a right CRC', () => {
    const random = seededRandom(1);
    let accepted = 0;
    for (let round = 0; round < 3000; round++) {
      const changed = Buffer.from(bytes);
      for (let i = 0; i <= random() * 3; i++) {
        const at = 4 * Math.floor((random() * (bytes.length - 4)) / 4);
        changed.writeUInt32LE(Math.floor(random() * (random() < 0.5 ? 8 : 2 ** 32)), at);
      }
      try {
        const index = parseHotIndex(sealed(changed), FILE);
        assert.ok(encodeHotIndex(index).equals(changed));
        accepted++;
      } catch (error) {
        const isKnown =
          hasCode(error, ErrorCodes.Corrupt) || hasCode(error, ErrorCodes.Unsupported);
        if (!isKnown) throw error;
      }
    }
    assert.ok(accepted > 100);
  });
});

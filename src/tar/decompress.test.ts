/**
 * Goal: a layer blob gives the bytes that were compressed, in any format, and damage is `Corrupt`, never an empty tail;
 * the source's own errors pass through untouched.
 * Method: zlib and zstd as encoders, cut and damaged streams, a bomb measured by its first piece.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { gzipSync } from 'node:zlib';
import { compress } from 'zstd-napi';
import { ErrorCodes, ObdError } from '../errors.js';
import { decompress } from './decompress.js';

/** Compresses to about two thirds: five pseudo-random bits a byte. */
const plain = Buffer.from(
  Array.from({ length: 900_000 }, (_, i) => Math.imul(i ^ (i >>> 7), 0x9e3779b1) >>> 27),
);

async function* pieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function all(bytes: Uint8Array, pieceBytes = 1000): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const piece of decompress(pieces(bytes, pieceBytes), 'blob')) {
    parts.push(Buffer.from(piece));
  }
  return Buffer.concat(parts);
}

const halves = [plain.subarray(0, 400_000), plain.subarray(400_000)] as const;
const formats: ReadonlyArray<readonly [string, Buffer]> = [
  ['plain', plain],
  ['gzip', gzipSync(plain)],
  ['gzip in members', Buffer.concat(halves.map((half) => gzipSync(half)))],
  ['zstd', compress(plain)],
  ['zstd in frames', Buffer.concat(halves.map((half) => compress(half)))],
  [
    'zstd behind a skippable frame',
    Buffer.concat([Buffer.from('502a4d1803000000616263', 'hex'), compress(plain)]),
  ],
];

for (const [format, bytes] of formats) {
  test(`reads ${format}, in pieces of any size`, async () => {
    for (const pieceBytes of [61, 65536, 1 << 22]) {
      assert.ok((await all(bytes, pieceBytes)).equals(plain), `pieces of ${pieceBytes}`);
    }
  });
}

test('passes empty and two-byte input through', async () => {
  assert.equal((await all(Buffer.alloc(0))).length, 0);
  assert.equal((await all(Buffer.from('ab'))).toString(), 'ab');
});

for (const [format, bytes] of formats.filter(([name]) => name !== 'plain')) {
  test(`a ${format} blob that is cut is corrupt`, async () => {
    await assert.rejects(all(bytes.subarray(0, bytes.length - 3)), { code: ErrorCodes.Corrupt });
  });
  test(`a ${format} blob with damage inside is corrupt`, async () => {
    const damaged = Buffer.from(bytes);
    // zstd-napi adds no checksum, so for zstd the damage must break the structure: a block header.
    const at = format.includes('zstd') ? bytes.indexOf(Buffer.from('28b52ffd', 'hex')) + 9 : 60_000;
    damaged.fill(0xff, at, at + 40);
    await assert.rejects(all(damaged), { code: ErrorCodes.Corrupt });
  });
}

test('refuses other compressions by name', async () => {
  await assert.rejects(all(Buffer.from('BZh91AY&SY')), { code: ErrorCodes.Unsupported });
  await assert.rejects(all(Buffer.from('fd377a585a000004', 'hex')), {
    code: ErrorCodes.Unsupported,
  });
});

test("passes the source's error through, and returns the source when reading stops early", async () => {
  const oops = new ObdError(ErrorCodes.Unavailable, 'gone');
  for (const bytes of [gzipSync(plain), compress(plain), plain]) {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, 5000);
      throw oops;
    }
    await assert.rejects(async () => {
      for await (const _ of decompress(failing(), 'blob'));
    }, oops);
    let closed = false;
    async function* watched(): AsyncGenerator<Uint8Array> {
      try {
        yield* pieces(bytes, 1000);
      } finally {
        closed = true;
      }
    }
    for await (const _ of decompress(watched(), 'blob')) break;
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(closed);
  }
});

/** Number of pieces between two collections: memory held then is held on purpose. */
const PIECES_BETWEEN = 16;

test('decompress() holds a few pieces of a bomb at a time', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const zeroes = Buffer.alloc(96 << 20);
  for (const bomb of [compress(zeroes), gzipSync(zeroes)]) {
    collect();
    const before = process.memoryUsage().arrayBuffers;
    let out = 0;
    let most = 0;
    let count = 0;
    for await (const piece of decompress(pieces(bomb, 1 << 20), 'bomb')) {
      out += piece.length;
      count++;
      if (count % PIECES_BETWEEN !== 0) continue;
      collect();
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    }
    assert.equal(out, zeroes.length);
    assert.ok(most < 16 << 20, `${most} bytes held at once`);
  }
});

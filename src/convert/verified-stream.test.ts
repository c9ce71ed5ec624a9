/**
 * Goal: nothing that differs from its digest passes as whole, and what a reader leaves is still checked.
 * Method: streams that are right, short, long, altered and endless.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { VerifiedStream } from './verified-stream.js';

const bytes = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i * i));
const hex = (algorithm: string) => createHash(algorithm).update(bytes).digest('hex');
const promised = { label: 'blob', digest: `sha256:${hex('sha256')}`, sizeBytes: bytes.length };
const CORRUPT = { code: ErrorCodes.Corrupt };

async function* pieces(of: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < of.length; at += 999) yield of.subarray(at, at + 999);
}

test('what is right passes through, and is counted', async () => {
  for (const digest of [promised.digest, `sha512:${hex('sha512')}`]) {
    let counted = 0;
    const stream = new VerifiedStream(pieces(bytes), { ...promised, digest }, (n) => {
      counted += n;
    });
    const parts: Uint8Array[] = [];
    for await (const piece of stream) parts.push(piece);
    await stream.finish();
    assert.ok(Buffer.concat(parts).equals(bytes));
    assert.equal(counted, bytes.length);
  }
});

test('what a reader leaves is read by finish()', async () => {
  const stream = new VerifiedStream(pieces(bytes), promised);
  for await (const _ of stream) break;
  await stream.finish();
  const altered = Buffer.from(bytes);
  altered[9_999] = (altered[9_999] as number) ^ 1;
  const wrong = new VerifiedStream(pieces(altered), promised);
  for await (const _ of wrong) break;
  await assert.rejects(wrong.finish(), CORRUPT);
});

test('short, long and endless streams are corrupt', async () => {
  await assert.rejects(new VerifiedStream(pieces(bytes.subarray(1)), promised).finish(), CORRUPT);
  const long = Buffer.concat([bytes, bytes]);
  await assert.rejects(new VerifiedStream(pieces(long), promised).finish(), CORRUPT);
  const unsized = { ...promised, sizeBytes: undefined };
  await assert.rejects(new VerifiedStream(pieces(long), unsized).finish(), CORRUPT);
  async function* endless(): AsyncGenerator<Uint8Array> {
    for (;;) yield bytes;
  }
  await assert.rejects(new VerifiedStream(endless(), promised).finish(), CORRUPT);
});

test('a digest of another kind is refused before anything is read', () => {
  for (const digest of ['md5:00', 'sha256:00', '', `sha256:${'A'.repeat(64)}`]) {
    assert.throws(() => new VerifiedStream(pieces(bytes), { ...promised, digest }), {
      code: ErrorCodes.Unsupported,
    });
  }
});

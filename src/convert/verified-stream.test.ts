/**
 * Goal: a stream that differs from its digest never passes as whole, and finish() checks the part that a reader left.
 * Method: streams that are right, short, long and altered, read to the end or not.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { ErrorCodes } from '../errors.js';
import { VerifiedStream } from './verified-stream.js';

const bytes = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i * i));
const hex = createHash('sha256').update(bytes).digest('hex');
const promised = { label: 'blob', digest: `sha256:${hex}` };
const CORRUPT = { code: ErrorCodes.Corrupt };

async function* pieces(of: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < of.length; at += 999) yield of.subarray(at, at + 999);
}

function altered(): Buffer {
  const wrong = Buffer.from(bytes);
  wrong[9_999] = (wrong[9_999] as number) ^ 1;
  return wrong;
}

test('passes correct bytes through', async () => {
  const stream = new VerifiedStream(pieces(bytes), promised);
  const parts: Uint8Array[] = [];
  for await (const piece of stream) parts.push(piece);
  await stream.finish();
  assert.ok(Buffer.concat(parts).equals(bytes));
});

test('finish() reads the rest that a reader left', async () => {
  const stream = new VerifiedStream(pieces(bytes), promised);
  for await (const _ of stream) break;
  await stream.finish();
  const wrong = new VerifiedStream(pieces(altered()), promised);
  for await (const _ of wrong) break;
  await assert.rejects(wrong.finish(), CORRUPT);
});

test('reports short, long and altered streams as corrupt', async () => {
  for (const wrong of [bytes.subarray(1), Buffer.concat([bytes, bytes]), altered()]) {
    await assert.rejects(new VerifiedStream(pieces(wrong), promised).finish(), CORRUPT);
  }
});

test('close() ends the source', async () => {
  let ended = false;
  async function* endless(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) yield bytes;
    } finally {
      ended = true;
    }
  }
  const stream = new VerifiedStream(endless(), promised);
  for await (const _ of stream) break;
  assert.ok(!ended);
  await stream.close();
  assert.ok(ended);
});

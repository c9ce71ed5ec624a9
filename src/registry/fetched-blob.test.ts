/**
 * Goal: a blob that is read in parts has the registry's bytes, by few requests, through failed attempts and servers that
 * ignore ranges.
 * Method: a loopback registry that misbehaves on demand.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, afterEach, test } from 'node:test';
import { type Fault, LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { ErrorCodes } from '../errors.js';
import { readFully } from '../io/random-access-file.js';
import { FetchedBlob } from './fetched-blob.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';

const PIECE = 256 << 10;
const bytes = randomBytes(3 * PIECE + 1000);
const registry = await LoopbackRegistry.start();
const digest = registry.addBlob(bytes);
const credentials = { label: '"config"', find: async () => undefined };
const client = new RegistryClient({ hosts: new RegistryHosts([]), credentials });
after(async () => {
  await client.close();
  await registry.close();
});
afterEach(() => {
  registry.faults.length = 0;
  registry.seen.length = 0;
});

async function open(): Promise<FetchedBlob> {
  const ranges = await client.blobRanges(registry.host, 'x/y', digest, bytes.length);
  return new FetchedBlob(ranges, new AbortController().signal);
}

async function read(blob: FetchedBlob, offset: number, length: number): Promise<void> {
  const target = Buffer.alloc(length);
  await readFully(blob, target, offset);
  assert.ok(bytes.subarray(offset, offset + length).equals(target));
}

test('neighbours come by one request, and only once', async () => {
  const blob = await open();
  await read(blob, PIECE - 10, 20);
  await read(blob, 0, 2 * PIECE);
  assert.equal(registry.seen.length, 1);
  await read(blob, 0, bytes.length);
  await read(blob, bytes.length - 1, 1);
  assert.equal(registry.seen.length, 2);
});

const FAULTS: readonly Fault[] = ['reset', 'truncate', 'ignore-range', { status: 503 }];
for (const fault of FAULTS) {
  test(`the bytes are right after ${JSON.stringify(fault)}`, async () => {
    const blob = await open();
    registry.faults.push(fault);
    await read(blob, PIECE + 7, PIECE);
  });
}

test('invalidated bytes are fetched again', async () => {
  const blob = await open();
  await read(blob, 0, 10);
  assert.ok(blob.invalidate(0, 10));
  assert.equal(blob.tryRead(Buffer.alloc(10), 0), false);
  await read(blob, 0, 10);
  assert.equal(registry.seen.length, 2);
});

test('a blob that is not there is an error at once', async () => {
  const missing = `sha256:${'0'.repeat(64)}`;
  const ranges = await client.blobRanges(registry.host, 'x/y', missing, 100);
  const blob = new FetchedBlob(ranges, new AbortController().signal);
  await assert.rejects(readFully(blob, Buffer.alloc(10), 0), { code: ErrorCodes.NotFound });
});

test('another range than the one asked for is an error', async () => {
  registry.faults.push('wrong-range');
  await assert.rejects(readFully(await open(), Buffer.alloc(10), 0), { code: ErrorCodes.Registry });
});

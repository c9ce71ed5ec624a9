/**
 * Goal: a probe says whether the registry gives a blob, at the first bytes, and leaves in the cache what an attach needs; it
 * never believes the cache alone, and never waits out an unavailable registry.
 * Method: a real cache and a registry on loopback whose answers fail as a test says.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { BlockCache } from '../cache/block-cache.js';
import { type ErrorCode, ErrorCodes, hasCode } from '../errors.js';
import { type BlobPart, openingParts } from '../layers/opening-parts.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { rootOf } from '../zfile/hash-tree-layout.js';
import { BlobProbes } from './blob-probes.js';
import { registrySource } from './registry-source.js';

/** Too large to be fetched whole. */
const BYTES = 3 << 20;
const blobOf = (text: string) => Buffer.alloc(BYTES, text);
const METADATA_BYTES = 300_000;
let directory: string;
let registry: LoopbackRegistry;
let client: RegistryClient;
let cache: BlockCache;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'obd-probes-'));
  registry = await LoopbackRegistry.start();
  const credentials = { label: 'none', find: async () => undefined };
  client = new RegistryClient({
    hosts: new RegistryHosts([]),
    credentials,
    limits: DEFAULT_LIMITS,
  });
  cache = await BlockCache.open(directory, { capacityBytes: 1 << 30, reserveBytes: 0 });
});
afterEach(() => {
  registry.faults.length = 0;
  registry.seen.length = 0;
});
after(async () => {
  await cache.close();
  await client.close();
  await registry.close();
  await rm(directory, { recursive: true });
});

async function probe(digest: string, sizeBytes = BYTES, signal?: AbortSignal): Promise<void> {
  const parts = openingParts({ metadataBytes: METADATA_BYTES }, sizeBytes, 1);
  await probeParts(digest, parts, sizeBytes, signal);
}

async function probeParts(
  digest: string,
  parts: readonly BlobPart[],
  sizeBytes = BYTES,
  signal = AbortSignal.timeout(10_000),
): Promise<void> {
  const address = { host: registry.host, repository: 'team/app', digest, sizeBytes };
  await new BlobProbes(cache, client).probe(address, parts, signal);
}

/** Waits until no probe has a blob open. @returns Bytes of the blob in the cache. */
async function cachedBytes(digest: string): Promise<number> {
  for (;;) {
    const { blobs } = await cache.list();
    if (blobs.every(({ inUse }) => !inUse)) {
      return blobs.find((blob) => blob.digest === digest)?.cachedBytes ?? 0;
    }
    await sleep(5);
  }
}

test('two requests bring head and tail, and the next probe asks once more', {
  timeout: 10_000,
}, async () => {
  const digest = registry.addBlob(blobOf('first'));
  await probe(digest);
  assert.equal(registry.seen.length, 2);
  const ends = Math.ceil(METADATA_BYTES / 65536) * 65536 + 65536;
  while ((await cachedBytes(digest)) !== ends) await sleep(5);
  await probe(digest);
  assert.equal(registry.seen.length, 3, 'cached bytes say nothing of what the registry gives now');
  assert.equal(registry.seen[2]?.range, 'bytes=0-0');
});

test('the first failure ends it, and the blob is not held', async () => {
  const digest = registry.addBlob(blobOf('second'));
  const failures: [number, ErrorCode][] = [
    [404, ErrorCodes.NotFound],
    [403, ErrorCodes.Unauthorized],
    [503, ErrorCodes.Unavailable],
  ];
  for (const [status, code] of failures) {
    for (let i = 0; i < 4; i++) registry.faults.push({ status });
    const startedMs = performance.now();
    await assert.rejects(probe(digest), (error) => hasCode(error, code));
    assert.ok(performance.now() - startedMs < 2_000);
    registry.faults.length = 0;
    assert.equal(await cachedBytes(digest), 0);
  }
  const missing = `sha256:${'0'.repeat(64)}`;
  await assert.rejects(probe(missing), (error) => hasCode(error, ErrorCodes.NotFound));
});

test('a part with a digest is waited for, and fetched again while it has another', async () => {
  const bytes = blobOf('part');
  const digest = registry.addBlob(bytes);
  const offset = BYTES - 70_000;
  const part = { offset, length: 512, digest: rootOf(bytes.subarray(offset, offset + 512)) };
  await probeParts(digest, [{ offset: 0, length: 4096 }, part]);
  while ((await cachedBytes(digest)) === 0) await sleep(5);
  const other = { ...part, digest: rootOf(Buffer.from('other')) };
  await assert.rejects(probeParts(digest, [other]), {
    code: ErrorCodes.Corrupt,
    message: new RegExp(`${part.digest}, and the image names ${other.digest}`),
  });
  registry.seen.length = 0;
  await probeParts(digest, [part]);
  assert.ok(registry.seen.length > 0);
});

test('a blob of another size than its image says is refused', async () => {
  const digest = registry.addBlob(blobOf('other'));
  for (const sizeBytes of [BYTES - 70_000, BYTES + 70_000]) {
    await assert.rejects(probe(digest, sizeBytes), (error) => hasCode(error, ErrorCodes.Registry));
  }
});

test('an image with a wrong size removes nothing from the cache', async () => {
  const digest = registry.addBlob(blobOf('kept'));
  await probe(digest);
  while ((await cachedBytes(digest)) === 0) await sleep(5);
  const before = await cachedBytes(digest);
  const wrong = probe(digest, BYTES + 70_000);
  await assert.rejects(wrong, (error) => hasCode(error, ErrorCodes.Registry));
  assert.equal(await cachedBytes(digest), before);
});

test('an image with a wrong size fails no open of the blob with its right one', async () => {
  const bytes = blobOf('raced');
  const digest = registry.addBlob(bytes);
  registry.faults.push('silence', 'silence');
  const wrong = probe(digest, BYTES + 70_000, AbortSignal.timeout(300));
  const refused = assert.rejects(wrong, { name: 'TimeoutError' });
  while (registry.seen.length === 0) await sleep(5);
  const ranges = await client.blobRanges(registry.host, 'team/app', digest, BYTES);
  const blob = await cache.openBlob(registrySource(ranges));
  await blob.fetch(0, 100, { urgency: 'demand', waitMs: undefined });
  const again = await client.blobRanges(registry.host, 'team/app', digest, BYTES + 1);
  await assert.rejects(cache.openBlob(registrySource(again)), {
    code: ErrorCodes.InvalidArgument,
    message: new RegExp(`${BYTES + 1} bytes here and ${BYTES} where`),
  });
  blob.close();
  await refused;
});

test('a blob that claims a terabyte is not opened', async () => {
  const digest = registry.addBlob(blobOf('large'));
  registry.seen.length = 0;
  await assert.rejects(probe(digest, 2 ** 40), (error) => hasCode(error, ErrorCodes.Registry));
  assert.deepEqual(
    registry.seen.map(({ range }) => range),
    ['bytes=0-0'],
  );
  const { blobs } = await cache.list();
  assert.ok(!blobs.some((blob) => blob.digest === digest));
});

test('bytes that came from another repository are no answer of this one', async () => {
  const digest = registry.addBlob(blobOf('joined'));
  const joining = {
    keyOf: async () => undefined,
    openBlob: async () => {
      const other = await client.blobRanges(registry.host, 'team/app', digest, BYTES);
      const handle = await cache.openBlob(registrySource(other));
      await handle.fetch(0, 100, { urgency: 'demand', waitMs: undefined });
      assert.equal(handle.fetchRequests, 1);
      registry.faults.push({ status: 404 });
      return handle;
    },
  };
  const address = { host: registry.host, repository: 'team/other', digest, sizeBytes: BYTES };
  const parts = [{ offset: 0, length: 100 }];
  const asked = new BlobProbes(joining, client).probe(address, parts, AbortSignal.timeout(5000));
  await assert.rejects(asked, (error) => hasCode(error, ErrorCodes.NotFound));
});

test('a caller that leaves ends it', async () => {
  const digest = registry.addBlob(blobOf('third'));
  for (let i = 0; i < 4; i++) registry.faults.push('silence');
  const leave = AbortSignal.timeout(50);
  await assert.rejects(probe(digest, BYTES, leave), { name: 'TimeoutError' });
  assert.equal(await cachedBytes(digest), 0);
});

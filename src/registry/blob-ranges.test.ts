/**
 * Goal: for every registry behaviour, a range read returns the requested bytes or an error within its deadline; and
 * signed URLs save the requests they can save.
 * Method: a loopback registry that misbehaves on demand.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { after, afterEach, test } from 'node:test';
import { type Fault, LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { readRange } from '../../test/support/read-range.js';
import { ErrorCodes } from '../errors.js';
import { RangeFill } from '../io/ranged-source.js';
import type { RemoteBlobRanges } from './blob-ranges.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const registry = await LoopbackRegistry.start();
const storage = await LoopbackRegistry.start();
const bytes = randomBytes(300_000);
const digest = registry.addBlob(bytes);
storage.addBlob(bytes);

/** Tests count requests, and on a busy machine any answer may be late: lateness causes no retry. */
const limits = { ...DEFAULT_LIMITS, backoffMs: 1 };
const credentials = { label: '"config"', find: async () => undefined };
const hosts = new RegistryHosts([]);
const client = new RegistryClient({ hosts, credentials, limits });
/** For a registry that stops answering on purpose. */
const hasty = new RegistryClient({
  hosts,
  credentials,
  limits: { ...limits, bodyIdleMs: 400, headersMs: 400 },
});
after(async () => {
  await client.close();
  await hasty.close();
  await registry.close();
  await storage.close();
});
afterEach(() => {
  registry.storage = undefined;
  registry.storageOrigin = undefined;
  for (const one of [registry, storage]) {
    one.faults.length = 0;
    one.seen.length = 0;
  }
});

const open = (from = client): Promise<RemoteBlobRanges> =>
  from.blobRanges(registry.host, 'x/y', digest, bytes.length);

async function reads(blob: RemoteBlobRanges, offset: number, length: number): Promise<void> {
  const target = new Uint8Array(length);
  await readRange(blob, target, offset);
  assert.ok(bytes.subarray(offset, offset + length).equals(target));
}

test('requests the size only if it is unknown', async () => {
  const known = await open();
  assert.equal(registry.seen.length, 0);
  assert.equal(known.label, `${digest} of ${registry.host}/x/y`);
  const asked = await client.blobRanges(registry.host, 'x/y', digest, undefined);
  assert.equal(asked.sizeBytes, bytes.length);
  assert.deepEqual(
    registry.seen.map(({ range }) => range),
    ['bytes=0-0'],
  );
});

test('sends one request for each read, with the whole range', async () => {
  const blob = await open();
  await reads(blob, 0, 1);
  await reads(blob, 1234, 65_536);
  await reads(blob, bytes.length - 10, 10);
  await readRange(blob, new Uint8Array(0), 5);
  assert.deepEqual(
    registry.seen.map(({ range }) => range),
    ['bytes=0-0', 'bytes=1234-66769', 'bytes=299990-299999'],
  );
  await assert.rejects(readRange(blob, new Uint8Array(2), bytes.length - 1), RangeError);
});

test('retries transient failures', async () => {
  const faults: Fault[] = ['reset', { status: 503 }, { status: 429 }];
  const blob = await open();
  for (const fault of faults) {
    registry.faults.push(fault);
    await reads(blob, 5_000, 100_000);
  }
  assert.equal(registry.seen.length, 2 * faults.length);
  registry.seen.length = 0;
  for (const fault of ['stall', 'silence'] as const) {
    registry.faults.push(fault);
    await reads(await open(hasty), 5_000, 100_000);
  }
  assert.ok(registry.seen.length >= 4);
});

test('a broken answer continues at the break', async () => {
  registry.faults.push('truncate', 'truncate');
  await reads(await open(), 100_000, 80_000);
  assert.deepEqual(
    registry.seen.map(({ range }) => range),
    ['bytes=100000-179999', 'bytes=140000-179999', 'bytes=160000-179999'],
  );
});

test('a server that ignores ranges yields the whole blob', async () => {
  const blob = await open();
  registry.faults.push('ignore-range');
  await reads(blob, 200_000, 1000);
  assert.equal(registry.seen.length, 1);
});

test('refuses an answer with another range or size', async () => {
  const blob = await open();
  for (const fault of ['wrong-range', 'no-content-range'] as const) {
    registry.faults.push(fault);
    await assert.rejects(reads(blob, 1000, 1000), { code: ErrorCodes.Registry }, fault);
  }
  const larger = await client.blobRanges(registry.host, 'x/y', digest, bytes.length + 1);
  await assert.rejects(readRange(larger, new Uint8Array(10), 0), {
    code: ErrorCodes.Registry,
    message: /were promised/,
  });
});

test('does not retry a missing blob', async () => {
  const blob = await client.blobRanges(registry.host, 'x/y', `sha256:${'0'.repeat(64)}`, 10);
  await assert.rejects(readRange(blob, new Uint8Array(1), 0), { code: ErrorCodes.NotFound });
  assert.equal(registry.seen.length, 1);
});

test('uses a part shorter than the range and requests the rest', async () => {
  const blob = await open();
  const part = bytes.subarray(1000, 1400);
  registry.faults.push({
    status: 206,
    headers: { 'CONTENT-RANGE': `Bytes\t1000-1399/${bytes.length} ` },
    body: part.toString('latin1'),
    encoding: 'latin1',
  });
  await reads(blob, 1000, 1000);
  assert.deepEqual(
    registry.seen.map(({ range }) => range),
    ['bytes=1000-1999', 'bytes=1400-1999'],
  );
});

test('accepts 200 with the right Content-Range, and a range around the requested one', async () => {
  const blob = await open();
  for (const [status, first, end] of [
    [200, 1000, 2000],
    [206, 900, 2100],
    [299, 1000, 2000],
  ] as const) {
    registry.faults.push({
      status,
      headers: { 'content-range': `bytes ${first}-${end - 1}/*` },
      body: bytes.subarray(first, end).toString('latin1'),
      encoding: 'latin1',
    });
    await reads(blob, 1000, 1000);
  }
  assert.equal(registry.seen.length, 3);
});

test('an answer that is not HTTP counts as no answer', async () => {
  const server = createServer((socket) => void socket.end('garbage\r\n\r\n'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const blob = await client.blobRanges(host, 'x/y', digest, bytes.length);
  await assert.rejects(blob.attempt(new RangeFill(new Uint8Array(1), 0)), {
    code: ErrorCodes.Unavailable,
    message: /not HTTP/,
  });
  server.close();
});

test('accepts headers of 21 KB, as Google Artifact Registry sends', async () => {
  const headers = { 'content-range': `bytes 5-5/${bytes.length}`, 'x-long': 'x'.repeat(21_000) };
  const body = bytes.subarray(5, 6).toString('latin1');
  registry.faults.push({ status: 206, headers, body, encoding: 'latin1' });
  await reads(await open(), 5, 1);
  assert.equal(registry.seen.length, 1);
});

test('an abort ends a read at once with its reason', async () => {
  registry.faults.push('stall');
  const controller = new AbortController();
  const reason = new RangeError('enough');
  const reading = readRange(await open(), new Uint8Array(1000), 0, controller.signal);
  setTimeout(() => controller.abort(reason), 50);
  await assert.rejects(reading, reason);
  await assert.rejects(readRange(await open(), new Uint8Array(1), 0, controller.signal), reason);
});

test('reuses the URL of a redirect until storage refuses it', async () => {
  registry.storage = storage;
  const blob = await open();
  for (let i = 0; i < 3; i++) await reads(blob, i * 1000, 500);
  assert.deepEqual([registry.seen.length, storage.seen.length], [1, 3]);
  storage.revokeSignatures();
  await reads(blob, 77, 500);
  assert.deepEqual([registry.seen.length, storage.seen.length], [2, 5]);
  storage.faults.push('reset');
  await reads(blob, 88, 500);
  assert.deepEqual([registry.seen.length, storage.seen.length], [3, 7]);
});

test('no message contains a signed URL', async () => {
  registry.storage = storage;
  const blob = await open();
  await reads(blob, 0, 1);
  storage.faults.push('wrong-range');
  const error = await readRange(blob, new Uint8Array(5), 9).catch((thrown: unknown) => thrown);
  assert.ok(error instanceof Error && !/signature/.test(`${error.message} ${error.stack}`));
});

test('refuses an endless or invalid redirect', async () => {
  const blob = await open();
  const location = `http://${registry.host}/v2/x/y/blobs/${digest}`;
  for (let i = 0; i < 10; i++) registry.faults.push({ status: 307, headers: { location } });
  await assert.rejects(readRange(blob, new Uint8Array(1), 0), {
    code: ErrorCodes.Registry,
    message: /redirected more than/,
  });
  registry.faults.length = 0;
  registry.faults.push({ status: 302, headers: { location: 'ftp://elsewhere/' } });
  await assert.rejects(readRange(blob, new Uint8Array(1), 0), { code: ErrorCodes.Registry });
});

test('a shorter or missing blob fails with the remedy to push it again', async () => {
  const blob = await open();
  const whole = registry.blobs.get(digest)!;
  registry.blobs.set(digest, whole.subarray(0, 100));
  const message = /push the image again|push it again/;
  const read = () => readRange(blob, new Uint8Array(1), 500);
  await assert.rejects(read(), { code: ErrorCodes.Registry, message });
  registry.blobs.delete(digest);
  await assert.rejects(read(), { code: ErrorCodes.NotFound, message });
  registry.blobs.set(digest, whole);
});

test('a closed client fails with FailedPrecondition', async () => {
  const closed = new RegistryClient({ hosts: new RegistryHosts([]), credentials, limits });
  const blob = await open(closed);
  await closed.close();
  await closed.close();
  await assert.rejects(readRange(blob, new Uint8Array(1), 0), {
    code: ErrorCodes.FailedPrecondition,
  });
});

test('a reload that moves the registry takes effect for an open blob, signed URL and all', async () => {
  const other = await LoopbackRegistry.start();
  other.addBlob(bytes);
  const name = 'registry.example:5000';
  const moving = new RegistryHosts(['127.0.0.1'], { [name]: registry.host });
  const own = new RegistryClient({ hosts: moving, credentials, limits });
  try {
    registry.storage = storage;
    const blob = await own.blobRanges(name, 'x/y', digest, bytes.length);
    await reads(blob, 0, 10);
    await reads(blob, 10, 10);
    assert.deepEqual([registry.seen.length, storage.seen.length], [1, 2]);
    assert.equal(blob.registry, registry.host);
    moving.replace(['127.0.0.1'], { [name]: other.host }, undefined);
    await reads(blob, 20, 10);
    assert.equal(blob.registry, other.host);
    assert.deepEqual([registry.seen.length, storage.seen.length, other.seen.length], [1, 2, 1]);
  } finally {
    await own.close();
    await other.close();
  }
});

test('refuses a part that is a page of HTML, with any range', async () => {
  const blob = await open();
  const headers = {
    'content-type': 'Text/HTML; charset=utf-8',
    'content-range': `bytes 0-3/${bytes.length}`,
    'content-length': '4',
  };
  registry.faults.push({ status: 206, headers, body: '<htm' });
  await assert.rejects(blob.attempt(new RangeFill(new Uint8Array(4), 0)), {
    code: ErrorCodes.Registry,
    message: /sent a page of HTML in place of it/,
  });
});

test('refuses a part that may be compressed, accepts one with the right length', async () => {
  const blob = await open();
  const range = { 'content-range': `bytes 0-3/${bytes.length}`, 'content-encoding': 'gzip' };
  registry.faults.push({ status: 206, headers: range, body: 'abcd' });
  await assert.rejects(blob.attempt(new RangeFill(new Uint8Array(4), 0)), {
    code: ErrorCodes.Registry,
    message: /sent it compressed/,
  });
  const body = bytes.subarray(0, 4).toString('latin1');
  const headers = { ...range, 'content-length': '4' };
  registry.faults.push({ status: 206, headers, body, encoding: 'latin1' });
  const fill = new RangeFill(new Uint8Array(4), 0);
  await blob.attempt(fill);
  assert.deepEqual(Buffer.from(fill.bytes), bytes.subarray(0, 4));
});

test('equal Content-Range headers count as one, different ones as none', async () => {
  const blob = await open();
  const range = `bytes 0-3/${bytes.length}`;
  const answer = (...ranges: string[]): void => {
    const headers = { 'content-range': ranges as never, 'content-length': '4' };
    registry.faults.push({
      status: 206,
      headers,
      body: bytes.toString('latin1', 0, 4),
      encoding: 'latin1',
    });
  };
  answer(range, range);
  await reads(blob, 0, 4);
  answer(range, `bytes 4-7/${bytes.length}`);
  await assert.rejects(blob.attempt(new RangeFill(new Uint8Array(4), 0)), {
    code: ErrorCodes.Registry,
    message: /did not say which/,
  });
});

test('an unexpected 100 Continue is named in the error and is retryable', async () => {
  const answer = (socket: Socket) => socket.write('HTTP/1.1 100 Continue\r\n\r\n');
  await rejectsAnswer(answer, /it sent "100 Continue", which no request asks for/);
});

test('interim answers without an end are given up like silence', async () => {
  const answer = (socket: Socket) => {
    const timer = setInterval(() => socket.write('HTTP/1.1 103 Early Hints\r\n\r\n'), 20);
    socket.on('close', () => clearInterval(timer));
  };
  await rejectsAnswer(answer, /it sends interim answers, such as 103, and no final one/);
});

/** Requires a read to fail with a retryable error, when a server answers its request with `answer`. */
async function rejectsAnswer(answer: (socket: Socket) => void, message: RegExp): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => answer(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `localhost:${(server.address() as AddressInfo).port}`;
  const hosts = new RegistryHosts([host]);
  const plain = new RegistryClient({ hosts, credentials, limits: { ...limits, headersMs: 400 } });
  try {
    const blob = await plain.blobRanges(host, 'x/y', digest, bytes.length);
    const signal = AbortSignal.timeout(10_000);
    await assert.rejects(blob.attempt(new RangeFill(new Uint8Array(4), 0), { signal }), {
      code: ErrorCodes.Unavailable,
      message,
    });
  } finally {
    await plain.close();
    server.close();
  }
}

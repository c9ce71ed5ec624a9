/**
 * Goal: an address that answers with something else than the blob or manifest is passed by for the next one, at once and
 * for that blob only.
 * Method: two mirrors on loopback that answer wrongly in each way, and a registry behind them that has the right bytes.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { ErrorCodes, ObdError } from '../errors.js';
import { RangeFill, type WholeAnswer } from '../io/ranged-source.js';
import { sha256Of } from '../oci/digest.js';
import type { RemoteBlobRanges } from './blob-ranges.js';
import { BlobSenders } from './blob-senders.js';
import type { Endpoint } from './endpoint.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { RegistrySource } from './registry-image.js';
import { DEFAULT_LIMITS } from './registry-limits.js';
import { WrongAnswers } from './wrong-answers.js';

const BLOB = randomBytes(200_000);
const DIGEST = sha256Of(BLOB);
const HTML = '<html>Please log in</html>';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';

interface Mirror {
  readonly origin: string;
  requests: number;
  answer: (request: IncomingMessage, response: ServerResponse) => void;
}

interface Scene {
  readonly client: RegistryClient;
  readonly registry: LoopbackRegistry;
  readonly mirrors: readonly [Mirror, Mirror];
  /** The addresses that reportWrong was called with. */
  readonly reported: string[];
}

async function mirror(t: TestContext): Promise<Mirror> {
  const server = createServer((request, response) => {
    made.requests++;
    made.answer(request, response);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const made: Mirror = {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: 0,
    answer: (_request, response) => void response.writeHead(404).end(),
  };
  return made;
}

async function scene(t: TestContext): Promise<Scene> {
  const registry = await LoopbackRegistry.start();
  registry.addBlob(BLOB);
  const mirrors = [await mirror(t), await mirror(t)] as const;
  const directory = mkdtempSync(join(tmpdir(), 'obd-wrong-'));
  const lines = mirrors.map(({ origin }) => `[host."${origin}"]\n`);
  mkdirSync(join(directory, registry.host));
  writeFileSync(join(directory, registry.host, 'hosts.toml'), lines.join(''));
  const reported: string[] = [];
  const client = new RegistryClient({
    hosts: new RegistryHosts([], {}, directory),
    credentials: { label: 'none', find: async () => undefined },
    limits: { ...DEFAULT_LIMITS, backoffMs: 1 },
    reportWrong: (address) => reported.push(address),
  });
  t.after(async () => {
    await client.close();
    await registry.close();
    rmSync(directory, { recursive: true });
  });
  return { client, registry, mirrors, reported };
}

/** One attempt, which must bring the right bytes. */
async function readsAtOnce(blob: RemoteBlobRanges, offset: number, length: number): Promise<void> {
  const fill = new RangeFill(new Uint8Array(length), offset);
  assert.equal(await blob.attempt(fill), undefined);
  assert.ok(BLOB.subarray(offset, offset + length).equals(fill.bytes));
}

async function reads(blob: RemoteBlobRanges, offset: number): Promise<Uint8Array> {
  const fill = new RangeFill(new Uint8Array(100), offset);
  assert.equal(await blob.attempt(fill), undefined);
  return fill.bytes;
}

function part(
  { headers: { range } }: IncomingMessage,
  response: ServerResponse,
  {
    blob = BLOB,
    body,
    sizeBytes = BLOB.length,
  }: { blob?: Buffer; body?: Buffer; sizeBytes?: number } = {},
): void {
  const [first, last] = (range ?? '').slice('bytes='.length).split('-').map(Number);
  const sent = body ?? blob.subarray(first, last! + 1);
  response.writeHead(206, { 'content-range': `bytes ${first}-${last}/${sizeBytes}` }).end(sent);
}

/** A part with a wrong first byte. */
function flipped(request: IncomingMessage, response: ServerResponse): void {
  const [first, last] = request.headers.range!.slice('bytes='.length).split('-').map(Number);
  const body = Buffer.from(BLOB.subarray(first, last! + 1));
  body[0]! ^= 1;
  part(request, response, { body });
}

const WRONG: Readonly<Record<string, Mirror['answer']>> = {
  'a page of HTML': (_request, response) =>
    void response.writeHead(200, { 'content-type': 'text/html' }).end(HTML),
  'a whole blob of another size': (_request, response) =>
    void response.writeHead(200, { 'content-length': HTML.length }).end(HTML),
  'a part of a blob of another size': (request, response) =>
    part(request, response, { sizeBytes: BLOB.length + 1 }),
  'a part that is empty': (request, response) => part(request, response, { body: Buffer.alloc(0) }),
  'a part of unknown position': (_request, response) => void response.writeHead(206).end(BLOB),
};

for (const [kind, answer] of Object.entries(WRONG)) {
  test(`the next host is asked at once after ${kind}`, async (t) => {
    const { client, registry, mirrors, reported } = await scene(t);
    for (const each of mirrors) each.answer = answer;
    const blob = await client.blobRanges(registry.host, 'x/y', DIGEST, BLOB.length);
    await readsAtOnce(blob, 1000, 50_000);
    await readsAtOnce(blob, 90_000, 50_000);
    assert.deepEqual([mirrors[0].requests, mirrors[1].requests], [1, 1]);
    assert.deepEqual(
      reported,
      mirrors.map(({ origin }) => `${origin}/v2`),
    );
    const other = registry.addBlob(Buffer.from('another blob'));
    const small = await client.blobRanges(registry.host, 'x/y', other, 12);
    await small.attempt(new RangeFill(new Uint8Array(12), 0));
    assert.equal(mirrors[0].requests, 2, 'other blobs still come from the mirror');
  });
}

test('the sender of bytes that fail a check is passed by, of each range its own', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const [first, second] = mirrors;
  first.answer = flipped;
  second.answer = flipped;
  const blob = await client.blobRanges(registry.host, 'x/y', DIGEST, BLOB.length);
  const wrong = async (offset: number) =>
    !BLOB.subarray(offset, offset + 100).equals(await reads(blob, offset));
  assert.ok(await wrong(0));
  assert.ok(await wrong(100_000));
  blob.invalidated(0, 100);
  assert.ok(await wrong(0));
  assert.deepEqual([first.requests, second.requests], [2, 1]);
  // The first mirror sent these, and is passed by already.
  blob.invalidated(100_000, 100);
  assert.ok(await wrong(100_000));
  assert.deepEqual([first.requests, second.requests], [2, 2]);
  blob.invalidated(100_000, 100);
  await readsAtOnce(blob, 100_000, 100);
  await readsAtOnce(blob, 0, 100);
  assert.deepEqual([first.requests, second.requests], [2, 2]);
  // All three are wrong now, so the first is asked again.
  blob.invalidated(0, 100);
  assert.ok(await wrong(0));
  assert.equal(first.requests, 3);
});

test('a mirror that sends another blob whole is passed by', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const other = randomBytes(BLOB.length);
  for (const each of mirrors) {
    each.answer = (_request, response) =>
      void response.writeHead(200, { 'content-length': other.length }).end(other);
  }
  const blob = await client.blobRanges(registry.host, 'x/y', DIGEST, BLOB.length);
  const attempt = async (): Promise<WholeAnswer | undefined> =>
    await blob.attempt(new RangeFill(new Uint8Array(100), 0));
  const refused = await attempt();
  assert.ok(refused !== undefined);
  const why = new ObdError(ErrorCodes.Registry, 'Cannot read: its digest is wrong');
  assert.ok(refused.refuse(why), 'another address is asked next');
  const second = await attempt();
  assert.ok(second !== undefined);
  second.cutOff();
  assert.deepEqual([mirrors[0].requests, mirrors[1].requests], [1, 1]);
});

test('bytes of a whole blob that fail a check end its stream', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  mirrors[0].answer = (_request, response) => {
    response.writeHead(200, { 'content-length': BLOB.length }).write(Buffer.alloc(1000));
  };
  const blob = await client.blobRanges(registry.host, 'x/y', DIGEST, BLOB.length);
  const fill = new RangeFill(new Uint8Array(100), 0);
  const whole = await blob.attempt(fill);
  assert.ok(whole !== undefined);
  let received = 0;
  const ended = (async () => {
    for await (const piece of whole.pieces(fill.floor)) {
      received += piece.length;
      blob.invalidated(0, 100);
    }
  })();
  await assert.rejects(ended, /failed a check/);
  assert.equal(received, 1000);
  await readsAtOnce(blob, 0, 100);
});

test('a manifest that is not the one asked for comes from the next host', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const bytes = Buffer.from('{"schemaVersion":2}');
  const digest = sha256Of(bytes);
  registry.manifests.set(`x/y/${digest}`, { mediaType: MANIFEST_TYPE, bytes });
  registry.manifests.set('x/y/v1', { mediaType: MANIFEST_TYPE, bytes });
  mirrors[0].answer = (_request, response) =>
    void response.writeHead(200, { 'content-type': MANIFEST_TYPE }).end('{"schemaVersion":3}');
  mirrors[1].answer = (_request, response) =>
    void response.writeHead(200, { 'content-type': 'text/html' }).end(HTML);
  assert.deepEqual((await client.getManifest(registry.host, 'x/y', digest)).bytes, bytes);
  assert.deepEqual((await client.getManifest(registry.host, 'x/y', digest)).bytes, bytes);
  assert.deepEqual([mirrors[0].requests, mirrors[1].requests], [1, 1]);
  mirrors[0].answer = mirrors[1].answer;
  assert.deepEqual((await client.getManifest(registry.host, 'x/y', 'v1')).bytes, bytes);
});

test('a manifest that is wrong everywhere fails and names the last host', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const digest = sha256Of(Buffer.from('{"schemaVersion":2}'));
  const other = { mediaType: MANIFEST_TYPE, bytes: Buffer.from('{"schemaVersion":4}') };
  registry.manifests.set(`x/y/${digest}`, other);
  for (const each of mirrors) {
    each.answer = (_request, response) => void response.writeHead(200).end('{}');
  }
  await assert.rejects(client.getManifest(registry.host, 'x/y', digest), {
    code: ErrorCodes.Corrupt,
    message: new RegExp(`its digest is ${sha256Of(other.bytes)}`),
  });
});

test('after bytes that failed a check, the only host is asked on a new connection', async (t) => {
  const { client, mirrors } = await scene(t);
  const [only] = mirrors;
  const ports: (number | undefined)[] = [];
  only.answer = (request, response) => {
    ports.push(request.socket.remotePort);
    part(request, response);
  };
  const host = only.origin.slice('http://'.length);
  const blob = await client.blobRanges(host, 'x/y', DIGEST, BLOB.length);
  const readOnce = async () => {
    await reads(blob, 0);
    // The connection is free again when its answer has ended on both sides.
    await sleep(50);
  };
  for (let i = 0; i < 3; i++) await readOnce();
  blob.invalidated(0, 100);
  await readOnce();
  assert.equal(new Set(ports.slice(0, 3)).size, 1, ports.join());
  assert.ok(!ports.slice(0, 3).includes(ports[3]), ports.join());
});

test('a probe passes a mirror by whose blob has another size', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  mirrors[0].answer = (request, response) => part(request, response, { sizeBytes: 1 });
  mirrors[1].answer = (_request, response) =>
    void response.writeHead(200, { 'content-length': HTML.length }).end(HTML);
  const signal = new AbortController().signal;
  const probed = async (sizeBytes?: number) =>
    (await client.probeBlob(registry.host, 'x/y', DIGEST, signal, { sizeBytes })).sizeBytes;
  assert.equal(await probed(), 1);
  assert.equal(await probed(BLOB.length), BLOB.length);
  assert.equal(await probed(7), BLOB.length, 'where all have another size, the image is wrong');
});

test('a probe passes a mirror by whose part of the blob has another digest', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const other = Buffer.from(BLOB);
  other[1000]! ^= 1;
  for (const mirror of mirrors) {
    mirror.answer = (request, response) => part(request, response, { blob: other });
  }
  const signal = new AbortController().signal;
  const probed = (offset: number, bytes: Buffer) => {
    const digest = sha256Of(bytes.subarray(offset, offset + 512));
    const promise = { sizeBytes: BLOB.length, part: { offset, length: 512, digest } };
    return client.probeBlob(registry.host, 'x/y', DIGEST, signal, promise);
  };
  for (const offset of [0, 900, BLOB.length - 512]) {
    const digest = sha256Of(BLOB.subarray(offset, offset + 512));
    const found = { sizeBytes: BLOB.length, part: { offset, length: 512, digest } };
    assert.deepEqual(await probed(offset, BLOB), found);
  }
  for (const mirror of mirrors) {
    mirror.answer = (_request, response) => void response.writeHead(416).end();
  }
  assert.equal((await probed(0, BLOB)).sizeBytes, BLOB.length);
  const { part: found } = await probed(900, Buffer.alloc(BLOB.length));
  const digest = sha256Of(BLOB.subarray(900, 1412));
  assert.equal(found?.digest, digest, 'where no address has it, the image is wrong');
});

test('a small blob is read whole from the next host if its digest is wrong', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const other = Buffer.from(BLOB);
  other[0]! ^= 1;
  mirrors[0].answer = (_request, response) => void response.writeHead(200).end(other);
  mirrors[1].answer = WRONG['a page of HTML']!;
  const reference = { host: registry.host, repository: 'x/y', target: 'v1' };
  const source = new RegistrySource(client, reference as never);
  const descriptor = { mediaType: '', digest: DIGEST, size: BLOB.length };
  const pieces: Uint8Array[] = [];
  for await (const piece of source.readBlob(descriptor)) pieces.push(piece);
  assert.ok(Buffer.concat(pieces).equals(BLOB));
  assert.deepEqual([mirrors[0].requests, mirrors[1].requests], [1, 1]);
});

test('a request asks a wrong mirror twice at most while the registry is away', async (t) => {
  const { client, registry, mirrors } = await scene(t);
  const { host } = registry;
  await registry.close();
  const signal = AbortSignal.timeout(10_000);
  /** The second request of the first mirror comes after the registry's refused connection. */
  const asksLittle = async (ask: () => Promise<unknown>) => {
    for (const each of mirrors) each.requests = 0;
    await ask().catch((error: unknown) => assert.ok(error instanceof ObdError));
    assert.deepEqual([mirrors[0].requests, mirrors[1].requests], [2, 1]);
    assert.ok(!signal.aborted);
  };

  for (const each of mirrors) each.answer = WRONG['a whole blob of another size']!;
  const blob = await client.blobRanges(host, 'x/y', DIGEST, BLOB.length);
  await asksLittle(() => blob.attempt(new RangeFill(new Uint8Array(100), 0)));
  await asksLittle(() =>
    client.probeBlob(host, 'x/probed', DIGEST, signal, { sizeBytes: BLOB.length }),
  );

  for (const each of mirrors) {
    each.answer = (_request, response) => void response.writeHead(200).end('{}');
  }
  await asksLittle(() => client.getManifest(host, 'x/y', DIGEST, signal));
  const reference = { host, repository: 'x/small', target: 'v1' };
  const source = new RegistrySource(client, reference as never);
  await asksLittle(async () => {
    for await (const _ of source.readBlob({ mediaType: '', digest: DIGEST, size: 2 }));
  });
});

test('one line is logged of each mirror though a block is damaged everywhere', async (t) => {
  const { client, registry, mirrors, reported } = await scene(t);
  for (const each of mirrors) each.answer = flipped;
  const blob = await client.blobRanges(registry.host, 'x/y', DIGEST, BLOB.length);
  for (let i = 0; i < 30; i++) {
    await reads(blob, 0);
    blob.invalidated(0, 100);
  }
  assert.equal(mirrors[0].requests, 10, 'each is asked in turn');
  assert.deepEqual(
    reported,
    mirrors.map(({ origin }) => `${origin}/v2`),
  );
});

test('marks and senders are bounded, and the newest ones count', () => {
  const endpoint = (origin: string) => ({ origin, prefix: '/v2' }) as Endpoint;
  const wrong = new WrongAnswers();
  const endpoints = ['https://a', 'https://b'].map(endpoint);
  assert.ok(wrong.add('blob 0', 'https://a/v2'));
  for (let i = 1; i <= 1024; i++) assert.ok(!wrong.add(`blob ${i}`, 'https://a/v2'));
  assert.deepEqual(wrong.inOrder('blob 1024', endpoints), endpoints.toReversed());
  assert.deepEqual(wrong.inOrder('blob 0', endpoints), endpoints);

  const senders = new BlobSenders();
  for (let i = 0; i < 1025; i++) senders.add(i * 10, i * 10 + 10, `s${i}`);
  assert.deepEqual([...senders.of(0, 10)], []);
  assert.deepEqual([...senders.of(10, 20)], ['s1']);
  assert.deepEqual([...senders.of(15, 35)], ['s3', 's2', 's1']);
  senders.add(0, 20_000, 'all');
  assert.deepEqual([...senders.of(15, 35)], ['all']);
});

test('marked addresses are asked in turn, though one that never answers is not marked', () => {
  const wrong = new WrongAnswers();
  const endpointAt = (origin: string): Endpoint => {
    const made = { origin, prefix: '/v2', actions: ['pull'], tls: undefined, headers: {} } as const;
    return { ...made, loginHosts: [], mirrorOf: undefined };
  };
  const silent = endpointAt('https://registry.example');
  const answering = ['http://a.example', 'http://b.example', 'http://registry.example'].map(
    endpointAt,
  );
  // The registry's mark is a mistake.
  for (const { origin } of [answering[2]!, ...answering]) wrong.add('blob', `${origin}/v2`);
  wrong.add('blob', `${answering[2]!.origin}/v2`);
  const asked = new Set<Endpoint>();
  for (let turn = 0; turn < 3; turn++) {
    const [first, second] = wrong.inOrder('blob', [...answering, silent]);
    assert.equal(first, silent);
    asked.add(second!);
    wrong.add('blob', `${second!.origin}/v2`);
  }
  assert.equal(asked.size, answering.length);
});

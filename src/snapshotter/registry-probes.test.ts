/**
 * Goal: a pull waits for a registry once for any number of layers, and a registry that refuses one blob is still
 * asked for another.
 * Method: a registry on loopback that counts, ports where nothing listens or answers, and a clock.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { ErrorCodes } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { RegistryProbes } from './registry-probes.js';

const LAYERS = ['a', 'b', 'c'].map((text) => Buffer.from(text));
const credentials = { label: 'none', find: async () => undefined };
let registry: LoopbackRegistry;
const hosts = new RegistryHosts([]);
let client: RegistryClient;

before(async () => {
  registry = await LoopbackRegistry.start();
  for (const layer of LAYERS) registry.addBlob(layer);
  client = new RegistryClient({
    hosts,
    credentials,
    limits: { ...DEFAULT_LIMITS, connectMs: 300 },
  });
});
after(async () => {
  await client.close();
  await registry.close();
});

const blob = (host: string, text: string | Buffer, repository = 'team/app') => ({
  host,
  repository,
  digest: sha256Of(Buffer.from(text)),
  ...{ sizeBytes: text.length, parts: [{ offset: 0, length: text.length }] },
});

async function timed(body: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await body();
  return performance.now() - started;
}

test('each blob is asked for once, by calls at one time and by later ones', async () => {
  const probes = new RegistryProbes(client, hosts);
  registry.seen.length = 0;
  for (let round = 0; round < 2; round++) {
    const asked = [...LAYERS, ...LAYERS].map((layer) =>
      probes.ask(blob(registry.host, layer), false),
    );
    for (const { sizeBytes } of await Promise.all(asked)) assert.equal(sizeBytes, 1);
  }
  assert.equal(registry.seen.length, LAYERS.length);
});

test('a hash tree that the blob does not have is refused, and the right one is not', async () => {
  const probes = new RegistryProbes(client, hosts);
  const [layer = Buffer.of()] = LAYERS;
  const { parts, ...wanted } = blob(registry.host, layer);
  const ask = (digest: string) =>
    probes.ask({ ...wanted, parts: [...parts, { offset: 0, length: 1, digest }] }, false);
  const wrong = sha256Of(Buffer.from('another'));
  for (let i = 0; i < 2; i++) {
    await assert.rejects(ask(wrong), { code: ErrorCodes.Corrupt, message: new RegExp(wrong) });
    assert.equal((await ask(wanted.digest)).sizeBytes, 1);
    assert.equal((await probes.ask({ ...wanted, parts }, false)).sizeBytes, 1);
  }
});

test('invalidate() drops the answer to a request in flight', async () => {
  const probes = new RegistryProbes(client, hosts);
  registry.seen.length = 0;
  const [layer = Buffer.of()] = LAYERS;
  const inFlight = probes.ask(blob(registry.host, layer), false);
  probes.invalidate();
  await inFlight;
  await probes.ask(blob(registry.host, layer), false);
  assert.equal(registry.seen.length, 2);
});

test('a missing blob decides nothing for other blobs, a refused repository does', async () => {
  const probes = new RegistryProbes(client, hosts);
  const notFound = { code: ErrorCodes.NotFound };
  await assert.rejects(probes.ask(blob(registry.host, 'none'), false), notFound);
  await probes.ask(blob(registry.host, 'a'), false);
  registry.seen.length = 0;
  registry.faults.push({ status: 403 });
  for (const text of ['a', 'b', 'c']) {
    const asked = probes.ask(blob(registry.host, text, 'other/app'), false);
    await assert.rejects(asked, { code: ErrorCodes.Unauthorized });
  }
  assert.equal(registry.seen.length, 1);
});

test('an address that refuses connections is asked once and not again for a minute', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  server.close();
  await once(server, 'close');
  const probes = new RegistryProbes(client, hosts);
  const spentMs = await timed(async () => {
    for (const text of ['a', 'b', 'c']) {
      const asked = probes.ask(blob(host, text, text), false);
      await assert.rejects(asked, { code: ErrorCodes.Unavailable });
    }
  });
  assert.ok(spentMs < 500, `${spentMs} ms`);
});

test('a name that does not resolve is asked once', async () => {
  const probes = new RegistryProbes(client, hosts);
  const asked = probes.ask(blob('no-such-host.invalid', 'a'), false);
  await assert.rejects(asked, { code: ErrorCodes.Unavailable });
});

test('a host that accepts and is silent costs one wait for all layers', async () => {
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const probes = new RegistryProbes(client, hosts);
  const spentMs = await timed(async () => {
    const asked = LAYERS.map((layer) => probes.ask(blob(host, layer), true));
    for (const { status } of await Promise.allSettled(asked)) assert.equal(status, 'rejected');
    for (const layer of LAYERS) await assert.rejects(probes.ask(blob(host, layer), true));
  });
  assert.ok(spentMs < 3000, `${spentMs} ms`);
  server.close();
});

test('a daemon that is busy with other layers delays no answer and is not left', async () => {
  let isLeft = false;
  const busy = {
    probe: (_blob: unknown, _parts: unknown, signal: AbortSignal) =>
      new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => {
          isLeft = true;
          reject(signal.reason);
        });
      }),
  };
  const probes = new RegistryProbes(client, hosts, busy);
  registry.seen.length = 0;
  const spentMs = await timed(() => probes.ask(blob(registry.host, 'a', 'busy/app'), false));
  assert.ok(spentMs < 2_500, `${spentMs} ms`);
  assert.equal(registry.seen.length, 1);
  assert.ok(!isLeft, 'what it fetches is needed by an attach');
});

test('a daemon that answers for one layer after the other is waited for', async () => {
  let turn = Promise.resolve();
  const steady = {
    probe: async () => {
      turn = turn.then(() => setTimeout(150));
      await turn;
    },
  };
  const probes = new RegistryProbes(client, hosts, steady);
  registry.seen.length = 0;
  const asked = ['a', 'b', 'c', 'd', 'e', 'f'].map((text) =>
    probes.ask(blob(registry.host, text, 'steady/app'), false),
  );
  const spentMs = await timed(() => Promise.all(asked));
  assert.ok(spentMs > 800, `${spentMs} ms`);
  assert.equal(registry.seen.length, 0);
});

test('an address that does not answer costs its connect time-out also where the daemon asks', async () => {
  const away = { probe: () => new Promise<never>(() => {}) };
  const probes = new RegistryProbes(client, hosts, away);
  const spentMs = await timed(async () => {
    const asked = probes.ask(blob('127.0.0.1:1', 'a'), false);
    await assert.rejects(asked, { code: ErrorCodes.Unavailable });
  });
  assert.ok(spentMs < 2_500, `${spentMs} ms`);
});

test('an unavailable registry takes back no answer that it gave', async () => {
  const probes = new RegistryProbes(client, hosts);
  const given = blob(registry.host, 'a', 'given/app');
  await probes.ask(given, false);
  registry.faults.push({ status: 503 }, { status: 503 });
  const next = blob(registry.host, 'b', 'given/app');
  await assert.rejects(probes.ask(next, false), { code: ErrorCodes.Unavailable });
  assert.equal((await probes.ask(given, false)).sizeBytes, 1);
  await assert.rejects(probes.ask(blob(registry.host, 'c', 'given/app'), false));
});

test('a failure that a registry answers with is tried again once', async () => {
  const probes = new RegistryProbes(client, hosts);
  registry.faults.push({ status: 503 });
  await probes.ask(blob(registry.host, 'a', 'passing/app'), false);
  registry.faults.push({ status: 503 }, { status: 503 });
  registry.seen.length = 0;
  const asked = probes.ask(blob(registry.host, 'b', 'lasting/app'), false);
  await assert.rejects(asked, { code: ErrorCodes.Unavailable });
  assert.equal(registry.seen.length, 2);
});

test('a change of how a registry is reached counts at once', async () => {
  const changing = new RegistryHosts([], { 'registry.example': '127.0.0.1:1' });
  const limits = { ...DEFAULT_LIMITS, connectMs: 300 };
  const other = new RegistryClient({ hosts: changing, credentials, limits });
  const probes = new RegistryProbes(other, changing);
  const wanted = blob('registry.example', 'a');
  await assert.rejects(probes.ask(wanted, false), { code: ErrorCodes.Unavailable });
  changing.replace([], { 'registry.example': registry.host }, undefined);
  assert.equal((await probes.ask(wanted, false)).sizeBytes, 1);
  await other.close();
});

/**
 * Goal: a registry on this machine is reached over TLS or plain HTTP, and no other host is asked over HTTP.
 * Method: one registry behind both, with a self-signed certificate; and a mirror before it.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { readRange } from '../../test/support/read-range.js';
import { TlsFront } from '../../test/support/tls-front.js';
import { ErrorCodes } from '../errors.js';
import type { Login } from './credentials.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const CONTENT = Buffer.from('the content of a layer');
const limits = { ...DEFAULT_LIMITS, connectMs: 1000, attemptsMax: 1, fetchDeadlineMs: 3000 };
const directory = mkdtempSync(join(tmpdir(), 'obd-tls-'));
let registry: LoopbackRegistry;
let front: TlsFront;
let digest: string;
const clients: RegistryClient[] = [];

before(async () => {
  registry = await LoopbackRegistry.start();
  digest = registry.addBlob(CONTENT);
  front = await TlsFront.start(registry.host, directory);
});
after(async () => {
  for (const client of clients) await client.close();
  await front.close();
  await registry.close();
  rmSync(directory, { recursive: true });
});

function clientWith(hostsToml: Readonly<Record<string, string>>, logins: [string, Login][] = []) {
  const hostsDirectory = mkdtempSync(join(directory, 'certs.d-'));
  for (const [host, text] of Object.entries(hostsToml)) {
    mkdirSync(join(hostsDirectory, host));
    writeFileSync(join(hostsDirectory, host, 'hosts.toml'), text);
  }
  const hosts = new RegistryHosts([], {}, hostsDirectory);
  const asked: string[] = [];
  const credentials = {
    label: 'logins',
    find: async (host: string) => {
      asked.push(host);
      return new Map(logins).get(host);
    },
  };
  const client = new RegistryClient({ hosts, credentials, limits });
  clients.push(client);
  return { client, asked };
}

async function content(client: RegistryClient, host: string): Promise<string> {
  const blob = await client.blobRanges(host, 'team/app', digest, undefined);
  const target = Buffer.alloc(blob.sizeBytes);
  await readRange(blob, target, 0);
  return target.toString();
}

test('a registry on this machine is read over TLS, or over plain HTTP', async () => {
  const { client } = clientWith({});
  assert.equal(await content(client, front.host), CONTENT.toString());
  assert.equal(await content(client, registry.host), CONTENT.toString());
});

test('an error names both addresses of a registry on this machine', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const { client } = clientWith({});
  await assert.rejects(content(client, `127.0.0.1:${port}`), (error: Error) => {
    assert.match(
      error.message,
      new RegExp(`: 127\\.0\\.0\\.1:${port}: .*; before that, https://127\\.0\\.0\\.1:${port}: `),
    );
    return true;
  });
  server.close();
});

test('only this machine is asked over plain HTTP without being listed', async () => {
  // 0.0.0.0 leads here and is not a loopback address.
  const port = registry.host.split(':')[1];
  registry.seen.length = 0;
  const { client } = clientWith({});
  await assert.rejects(content(client, `0.0.0.0:${port}`), { code: ErrorCodes.Registry });
  assert.deepEqual(registry.seen, []);
  const plain = clientWith({ [`0.0.0.0:${port}`]: `server = "http://0.0.0.0:${port}"` });
  assert.equal(await content(plain.client, `0.0.0.0:${port}`), CONTENT.toString());
});

test('"ca" of hosts.toml is trusted for that host, and needed', async () => {
  const host = `0.0.0.0:${front.host.split(':')[1]}`;
  await assert.rejects(content(clientWith({}).client, host), { code: ErrorCodes.Registry });
  const toml = `ca = ${JSON.stringify(front.certificatePath)}`;
  assert.equal(await content(clientWith({ [host]: toml }).client, host), CONTENT.toString());
  const skip = clientWith({ [host]: 'skip_verify = true' });
  assert.equal(await content(skip.client, host), CONTENT.toString());
});

test('asks the mirror, then the registry, each with its own login', async () => {
  const mirror = await LoopbackRegistry.start();
  const login = { kind: 'basic', username: 'm', password: 'mirror' } as const;
  mirror.login = login;
  mirror.addBlob(CONTENT);
  const toml = `server = "http://${registry.host}"\n[host."http://${mirror.host}"]`;
  const password = (text: string): Login => ({ kind: 'password', username: 'm', password: text });
  registry.seen.length = 0;
  const { client, asked } = clientWith({ 'images.example': toml }, [
    [mirror.host, password('mirror')],
    ['images.example', password('secret')],
  ]);
  assert.equal(await content(client, 'images.example'), CONTENT.toString());
  assert.deepEqual(registry.seen, []);
  assert.deepEqual(new Set(asked), new Set([mirror.host]));
  assert.match(mirror.seen[0]?.path ?? '', /[?&]ns=images\.example/);

  mirror.blobs.clear();
  assert.equal(await content(client, 'images.example'), CONTENT.toString());
  await mirror.close();
  assert.equal(await content(client, 'images.example'), CONTENT.toString());
  const seen = [...mirror.seen, ...registry.seen].map(({ authorization }) => authorization ?? '');
  assert.ok(!seen.some((header) => header.includes(Buffer.from('m:secret').toString('base64'))));
});

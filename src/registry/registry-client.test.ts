/**
 * Goal: logins and tokens are sent only to the right hosts, and as seldom as possible; an upload is complete or absent;
 * manifests match their digests.
 * Method: loopback registries that ask for logins, expire tokens, redirect, and break uploads.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { readRange as readBlobRange } from '../../test/support/read-range.js';
import { ErrorCodes } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import { OCI_MANIFEST } from '../oci/media-types.js';
import { parseReference } from '../oci/reference.js';
import { requestToken } from './bearer-token.js';
import { parseChallenges } from './challenge.js';
import type { Login } from './credentials.js';
import { HttpClient } from './http-client.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { RegistryDestination, RegistrySource } from './registry-image.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const directory = mkdtempSync(join(tmpdir(), 'obd-client-'));
const registry = await LoopbackRegistry.start();
const storage = await LoopbackRegistry.start();
const bytes = randomBytes(700_000);
const digest = registry.addBlob(bytes);
storage.addBlob(bytes);
const blob = { mediaType: 'application/octet-stream', digest, size: bytes.length };

const SECRET = 'the-password';
const PASSWORD: Login = { kind: 'password', username: 'ann', password: SECRET };
const logins = new Map<string, Login>();
const credentials = { label: '"config"', find: async (host: string) => logins.get(host) };
/** Tests count requests, and on a busy machine any answer may be late: lateness causes no retry. */
const limits = { ...DEFAULT_LIMITS, backoffMs: 1 };
/** For a registry that stops answering on purpose. */
const hastyLimits = {
  ...limits,
  headersMs: 400,
  bodyIdleMs: 400,
  uploadIdleMs: 400,
  uploadHeadersMs: 400,
};
const clients: RegistryClient[] = [];
function newClient(chosen = limits): RegistryClient {
  const hosts = new RegistryHosts([]);
  const client = new RegistryClient({ hosts, credentials, limits: chosen });
  clients.push(client);
  return client;
}

after(async () => {
  for (const client of clients) await client.close();
  await registry.close();
  await storage.close();
  rmSync(directory, { recursive: true });
});
beforeEach(() => {
  logins.clear();
  registry.login = undefined;
  registry.storage = undefined;
  registry.tokenLife = 300;
  for (const one of [registry, storage]) {
    one.faults.length = 0;
    one.tokenFaults.length = 0;
    one.seen.length = 0;
  }
});

const { host } = registry;
const tokensAsked = () => registry.seen.filter(({ path }) => path.startsWith('/token')).length;

async function readRange(client: RegistryClient, offset = 0): Promise<void> {
  const target = new Uint8Array(1000);
  await readBlobRange(await client.blobRanges(host, 'x/y', digest, bytes.length), target, offset);
  assert.ok(bytes.subarray(offset, offset + 1000).equals(target));
}

test('sends no login without a challenge', async () => {
  logins.set(host, PASSWORD);
  await readRange(newClient());
  assert.deepEqual(
    registry.seen.map(({ authorization }) => authorization),
    [undefined],
  );
});

test('logs in by Basic, with one challenge', async () => {
  registry.login = { kind: 'basic', username: 'ann', password: SECRET };
  logins.set(host, PASSWORD);
  const client = newClient();
  for (let i = 0; i < 3; i++) await readRange(client, i);
  assert.equal(registry.seen.length, 4);
});

test('requests one token for each repository and kind of access, for any number of readers', async () => {
  registry.login = { kind: 'bearer', username: 'ann', password: SECRET };
  logins.set(host, PASSWORD);
  const client = newClient();
  await Promise.all(Array.from({ length: 20 }, (_, i) => readRange(client, i)));
  assert.equal(tokensAsked(), 1);
  assert.match(
    registry.seen.find(({ path }) => path.startsWith('/token'))?.path ?? '',
    /x%2Fy%3Apull$/,
  );
  await client.hasBlob(host, 'x/y', digest);
  assert.equal(tokensAsked(), 2);
  assert.match(registry.seen.at(-2)?.path ?? '', /x%2Fy%3Apull%2Cpush$/);
});

test('gets an anonymous token, and one for an identity token', async () => {
  registry.login = { kind: 'bearer', username: '', password: '' };
  await readRange(newClient());
  registry.login = { kind: 'bearer', username: 'ann', password: 'refresh' };
  logins.set(host, { kind: 'identity-token', token: 'refresh' });
  await readRange(newClient());
});

test('replaces a token that is refused early without failing a read', async () => {
  registry.login = { kind: 'bearer', username: '', password: '' };
  const client = newClient();
  await readRange(client);
  registry.revokeTokens();
  await Promise.all([readRange(client, 5), readRange(client, 6)]);
  assert.equal(tokensAsked(), 2);
  registry.tokenLife = 1;
  const hasty = newClient();
  await readRange(hasty);
  await readRange(hasty);
  assert.equal(tokensAsked(), 4);
});

test('retries a token server that fails for a moment', async () => {
  registry.login = { kind: 'bearer', username: '', password: '' };
  registry.tokenFaults.push({ status: 503 }, 'reset', 'silence');
  await readRange(newClient(hastyLimits));
  assert.ok(tokensAsked() >= 4);
});

test('reports a missing or refused login with the remedy, without quoting it', async () => {
  for (const kind of ['basic', 'bearer'] as const) {
    registry.login = { kind, username: 'ann', password: 'another' };
    for (const login of [undefined, PASSWORD]) {
      if (login !== undefined) logins.set(host, login);
      registry.seen.length = 0;
      await assert.rejects(readRange(newClient()), (error: Error & { code?: string }) => {
        assert.equal(error.code, ErrorCodes.Unauthorized);
        assert.match(error.message, /docker login 127/);
        return !`${error.stack}${JSON.stringify(error)}`.includes(SECRET);
      });
      assert.ok(registry.seen.length <= 2 + tokensAsked());
    }
    logins.clear();
  }
});

test('sends no login to storage after a redirect or to an unsafe token server', async () => {
  registry.login = { kind: 'basic', username: 'ann', password: SECRET };
  logins.set(host, PASSWORD);
  registry.storage = storage;
  const client = newClient();
  await readRange(client);
  await readRange(client, 7);
  for await (const _ of client.readBlob(host, 'x/y', blob));
  assert.equal(storage.seen.length, 3);
  assert.ok(storage.seen.every(({ authorization }) => authorization === undefined));

  const realm = 'Bearer realm="http://registry.example/token",service="x"';
  registry.faults.push({ status: 401, headers: { 'www-authenticate': realm } });
  registry.login = undefined;
  await assert.rejects(readRange(newClient()), {
    code: ErrorCodes.Registry,
    message: /registry\.example is not reached by TLS/,
  });
});

test('a remote plain HTTP registry cannot direct its login to a port of this machine', async () => {
  const challenge = 'Bearer realm="http://127.0.0.1:9/token",service="x"';
  const parameters = parseChallenges(challenge)[0]?.parameters ?? new Map();
  const http = new HttpClient(limits);
  const doing = 'Cannot log in to registry.lan';
  const common = { parameters, scope: 'x', login: PASSWORD, host: 'registry.lan', doing };
  for (const origin of ['http://registry.lan:5000', 'https://registry.lan', 'https://127.0.0.1']) {
    await assert.rejects(requestToken(http, new RegistryHosts([]), { ...common, origin }), {
      code: ErrorCodes.Registry,
      message: /registry\.lan: its token server http:\/\/127\.0\.0\.1:9 .* no login is sent/,
    });
  }
  await http.close();
});

test("does not send a name's login to an endpoint on another host", async () => {
  registry.login = { kind: 'basic', username: 'ann', password: SECRET };
  logins.set('registry.example', PASSWORD);
  const hosts = new RegistryHosts([], { 'registry.example': host });
  const client = new RegistryClient({ hosts, credentials, limits });
  clients.push(client);
  await assert.rejects(client.blobRanges('registry.example', 'x/y', digest, undefined), {
    code: ErrorCodes.Unauthorized,
    message: /docker login 127/,
  });
  assert.ok(registry.seen.every(({ authorization }) => authorization === undefined));
  logins.set(host, PASSWORD);
  await client.blobRanges('registry.example', 'x/y', digest, undefined);
});

test('reads a whole blob over breaks, with and without ranges', async () => {
  const client = newClient(hastyLimits);
  registry.faults.push('truncate', 'stall', 'ignore-range', { status: 502 });
  const pieces: Uint8Array[] = [];
  for await (const piece of client.readBlob(host, 'x/y', blob)) pieces.push(piece);
  assert.ok(Buffer.concat(pieces).equals(bytes));
  const source = new RegistrySource(client, parseReference(`${host}/x/y:1`));
  registry.faults.push('wrong-bytes');
  await assert.rejects(
    async () => {
      for await (const _ of source.readBlob(blob));
    },
    { code: ErrorCodes.Corrupt },
  );
});

test('gives up a download without progress', async () => {
  for (let i = 0; i < 20; i++) registry.faults.push('reset');
  await assert.rejects(
    async () => {
      for await (const _ of newClient().readBlob(host, 'x/y', blob));
    },
    { code: ErrorCodes.Unavailable, message: /5 attempts/ },
  );
});

test('restarts an upload until it is complete, with a login', async () => {
  registry.login = { kind: 'bearer', username: 'ann', password: SECRET };
  logins.set(host, PASSWORD);
  const content = randomBytes(3_000_000);
  const path = join(directory, 'blob');
  writeFileSync(path, content);
  const descriptor = { ...blob, digest: sha256Of(content), size: content.length };
  const client = newClient();
  const destination = new RegistryDestination(client, parseReference(`${host}/x/y:1`));
  assert.equal(await destination.hasBlob(descriptor), false);
  let told = 0;
  // POST and PUT of the first attempt, of the second, and so on.
  registry.faults.push(
    { status: 503 },
    { status: 202, headers: { location: '/elsewhere' } },
    'reset',
  );
  await destination.putBlob(descriptor, path, (sent) => {
    told += sent;
  });
  assert.ok(registry.blobs.get(descriptor.digest)?.equals(content));
  assert.ok(told >= content.length);
  assert.equal(await destination.hasBlob(descriptor), true);
  await destination.putBlob({ ...blob, digest: sha256Of(bytes) }, bytes);
});

test('gives up a stalled upload, and one with wrong content', async () => {
  const content = Buffer.alloc(20 << 20, 1);
  const descriptor = { ...blob, digest: sha256Of(content), size: content.length };
  const once = new RegistryClient({
    hosts: new RegistryHosts([]),
    credentials,
    limits: { ...hastyLimits, attemptsMax: 1 },
  });
  clients.push(once);
  const upload = (descriptorOf = descriptor) =>
    once.putBlob(host, 'x/y', { descriptor: descriptorOf, content, onBytes: undefined });
  registry.faults.push(
    { status: 202, headers: { location: '/v2/x/y/blobs/uploads/1' } },
    'silence',
  );
  await assert.rejects(upload(), { code: ErrorCodes.Unavailable });
  await assert.rejects(upload({ ...descriptor, digest: sha256Of(bytes) }), {
    code: ErrorCodes.Corrupt,
  });
  registry.faults.push({ status: 405 });
  await assert.rejects(upload(), { code: ErrorCodes.Registry, message: /405/ });
  const controller = new AbortController();
  controller.abort(new RangeError('enough'));
  const late = once.putBlob(
    host,
    'x/y',
    { descriptor, content, onBytes: undefined },
    controller.signal,
  );
  await assert.rejects(late, RangeError);
});

test('writes and reads manifests by tag and digest, and checks the digest', async () => {
  const reference = parseReference(`${host}/x/y:tag`);
  const client = newClient();
  const destination = new RegistryDestination(client, reference);
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: blob, layers: [blob] };
  const content = Buffer.from(JSON.stringify(manifest));
  const descriptor = await destination.publish(content, OCI_MANIFEST);
  assert.deepEqual(await destination.putManifest(content, OCI_MANIFEST), descriptor);
  const source = new RegistrySource(client, reference);
  const found = await source.resolve();
  assert.deepEqual(found.descriptor, descriptor);
  assert.deepEqual((await source.readManifest(descriptor)).bytes, found.bytes);
  await assert.rejects(source.readManifest({ ...descriptor, size: 1 }), {
    code: ErrorCodes.Corrupt,
  });
  const other = sha256Of(Buffer.from('other'));
  registry.manifests.set(`x/y/${other}`, { mediaType: OCI_MANIFEST, bytes: content });
  await assert.rejects(source.readManifest({ ...descriptor, digest: other }), {
    code: ErrorCodes.Corrupt,
  });
  await assert.rejects(new RegistrySource(client, parseReference(`${host}/x/y:none`)).resolve(), {
    code: ErrorCodes.NotFound,
  });
});

test('refuses names that would change the URL', async () => {
  const client = newClient();
  for (const [name, repository] of [
    ['127.0.0.1:1/x', 'y'],
    [host, '../../token'],
    [host, 'X'],
  ] as const) {
    await assert.rejects(client.hasBlob(name, repository, digest), {
      code: ErrorCodes.InvalidArgument,
    });
  }
  await assert.rejects(client.getManifest(host, 'x/y', '../blobs'), {
    code: ErrorCodes.InvalidArgument,
  });
  await assert.rejects(client.blobRanges(host, 'x/y', 'sha256:../x', 1), {
    code: ErrorCodes.InvalidArgument,
  });
  assert.equal(registry.seen.length, 0);
});

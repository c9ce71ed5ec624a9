/**
 * Goal: the artifacts of a subject are found with and without the referrers API, in one round trip, and a hostile or broken
 * answer ends in an error or a short list.
 * Method: registries on loopback with and without the API, with pages, tokens, a mirror, and faults.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { ReferrerRegistry } from '../../test/support/referrer-registry.js';
import { ErrorCodes, type ObdError } from '../errors.js';
import { sha256Of } from '../oci/digest.js';
import { OCI_INDEX, OCI_MANIFEST } from '../oci/media-types.js';
import { fallbackTagOf } from '../oci/referrer.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const TYPE = 'application/vnd.example.one';
const REPOSITORY = 'x/y';
const SUBJECT = sha256Of(Buffer.from('the subject'));
const EMPTY = {
  mediaType: 'application/vnd.oci.empty.v1+json',
  digest: sha256Of(Buffer.from('{}')),
  size: 2,
};

const hostsDirectory = mkdtempSync(join(tmpdir(), 'obd-referrers-'));
const registry = await ReferrerRegistry.start();
const mirror = await ReferrerRegistry.start();
const client = new RegistryClient({
  hosts: new RegistryHosts([], {}, hostsDirectory),
  credentials: { label: 'none', find: async () => undefined },
  limits: { ...DEFAULT_LIMITS, backoffMs: 1 },
});
after(async () => {
  await client.close();
  await registry.stop();
  await mirror.stop();
  rmSync(hostsDirectory, { recursive: true });
});
beforeEach(() => {
  for (const one of [registry, mirror]) {
    one.manifests.clear();
    one.tags.clear();
    one.requests.length = 0;
    one.faults.length = 0;
    one.hasReferrers = true;
    one.filters = true;
    one.pageSize = undefined;
    one.needsToken = false;
  }
});

/** Stores an artifact and returns its entry in the list. */
function addArtifact(name: string, artifactType = TYPE, to = registry) {
  const annotations = { name };
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType,
    config: EMPTY,
    layers: [EMPTY],
    subject: { mediaType: OCI_MANIFEST, digest: SUBJECT, size: 7 },
    annotations,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const digest = to.addManifest(REPOSITORY, undefined, bytes, OCI_MANIFEST);
  return { mediaType: OCI_MANIFEST, digest, size: bytes.length, artifactType, annotations };
}

function addTag(manifests: readonly unknown[], to = registry): void {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
  to.addManifest(REPOSITORY, fallbackTagOf(SUBJECT), bytes, OCI_INDEX);
}

const find = (host = registry.host, signal?: AbortSignal) =>
  client.referrers(host, REPOSITORY, SUBJECT, TYPE, signal);
const fault = (of: RegExp, status: number, body = '', headers = {}) =>
  registry.faults.push({ of, answer: { status, body, headers } });

test('takes the list of the API, and not that of the tag', async () => {
  const entry = addArtifact('one');
  addArtifact('other', 'application/other');
  addTag([addArtifact('two', 'application/two')]);
  assert.deepEqual(await find(), [entry]);
  assert.equal(registry.count(/referrers\/sha256:.*artifactType=/), 1);
});

test('takes the list of the tag without the API', async () => {
  registry.hasReferrers = false;
  const entry = addArtifact('one');
  addTag([entry, addArtifact('other', 'application/other'), { odd: 1 }]);
  assert.deepEqual(await find(), [entry]);
});

test('advises no login for an address that the registry redirects to', async () => {
  const location = `http://${mirror.host}/latest/meta-data`;
  fault(/referrers/, 302, '', { location });
  mirror.faults.push({ of: /meta-data/, answer: { status: 401 } });
  const sent = `: ${mirror.host} answered 401; registry ${registry.host} sent the request there`;
  await assert.rejects(find(), ({ code, message }: ObdError) => {
    assert.equal(code, ErrorCodes.Unauthorized);
    assert.ok(message.includes(sent), message);
    assert.doesNotMatch(message, /docker login/);
    return true;
  });
  fault(/referrers/, 403);
  await assert.rejects(find(), { code: ErrorCodes.Unauthorized, message: /docker login/ });
});

test('requests both lists at the same time', async () => {
  for (const of of [/referrers/, /manifests/]) registry.faults.push({ of, answer: 'silence' });
  const controller = new AbortController();
  const found = find(registry.host, controller.signal);
  while (registry.requests.length < 2) await setImmediate();
  controller.abort(new RangeError('enough'));
  await assert.rejects(found, RangeError);
});

test('returns an empty list for a subject without artifacts', async () => {
  assert.deepEqual(await find(), []);
  registry.hasReferrers = false;
  assert.deepEqual(await find(), []);
});

test('filters the list of a registry that does not', async () => {
  registry.filters = false;
  const entry = addArtifact('one');
  addArtifact('other', 'application/other');
  assert.deepEqual(await find(), [entry]);
});

test('reads four pages, and keeps 64 artifacts', async () => {
  registry.pageSize = 2;
  for (let i = 0; i < 10; i++) addArtifact(`number ${i}`);
  assert.equal((await find()).length, 8);
  assert.equal(registry.count(/referrers/), 4);
  for (let i = 10; i < 100; i++) addArtifact(`number ${i}`);
  registry.pageSize = 50;
  assert.equal((await find()).length, 64);
  assert.equal(registry.count(/referrers/), 6);
});

test('follows no link to another host, or that is no link', async () => {
  const entry = addArtifact('one');
  addArtifact('two', TYPE, mirror);
  const elsewhere = `http://${mirror.host}/v2/${REPOSITORY}/referrers/${SUBJECT}`;
  const body = JSON.stringify({ schemaVersion: 2, manifests: [entry] });
  for (const link of [
    `<${elsewhere}>; rel="next"`,
    '<http://[>; rel=next',
    '<<<<;',
    '<x>; rel="prev"',
  ]) {
    fault(/referrers/, 200, body, { 'content-type': OCI_INDEX, link });
    assert.deepEqual(await find(), [entry]);
  }
  assert.equal(mirror.requests.length, 0);
  assert.equal(registry.count(/referrers/), 4);
});

test('asks for one token', async () => {
  registry.needsToken = true;
  const entry = addArtifact('one');
  assert.deepEqual(await find(), [entry]);
  assert.equal(registry.count(/token/), 1);
  registry.hasReferrers = false;
  addTag([entry]);
  assert.deepEqual(await find(), [entry]);
  assert.equal(registry.count(/token/), 1);
});

test('reports a refused login', async () => {
  for (const status of [401, 403]) {
    fault(/referrers/, status);
    fault(/manifests/, status);
    await assert.rejects(find(), { code: ErrorCodes.Unauthorized });
  }
});

test('takes the tag if the API fails, and reports the failure without a tag', async () => {
  registry.faults.push({ of: /referrers/, answer: 'drop' });
  await assert.rejects(find(), { code: ErrorCodes.Unavailable });
  assert.equal(registry.count(/referrers/), 1);
  const entry = addArtifact('one');
  addTag([entry]);
  registry.faults.push({ of: /referrers/, answer: 'drop' });
  assert.deepEqual(await find(), [entry]);
  registry.hasReferrers = false;
  registry.faults.push({ of: /manifests/, answer: 'drop' });
  await assert.rejects(find(), { code: ErrorCodes.Unavailable });
});

test('reports an answer that is no list', async () => {
  const html = '<html><body>Welcome</body></html>';
  const image = JSON.stringify({ schemaVersion: 2, config: EMPTY, layers: [] });
  for (const [body, type] of [
    [html, 'text/html'],
    [html, OCI_INDEX],
    [image, OCI_MANIFEST],
    ['[]', OCI_INDEX],
    ['{"manifests":7}', OCI_INDEX],
    ['', OCI_INDEX],
  ] as const) {
    fault(/referrers/, 200, body, { 'content-type': type });
    await assert.rejects(find(), { code: ErrorCodes.Registry }, body);
    fault(/referrers/, 404);
    fault(/manifests/, 200, body, { 'content-type': type });
    await assert.rejects(find(), { code: ErrorCodes.Registry }, body);
  }
  fault(/referrers/, 200, 'x', { 'content-length': String(5 << 20) });
  await assert.rejects(find(), { code: ErrorCodes.Registry, message: /longer than 4194304 bytes/ });
});

test('ends at the deadline of the caller', async () => {
  registry.faults.push({ of: /referrers/, answer: 'silence' });
  const startMs = performance.now();
  await assert.rejects(find(registry.host, AbortSignal.timeout(100)));
  assert.ok(performance.now() - startMs < 5_000);
});

test('asks the mirror first, and the registry for what the mirror lacks', async () => {
  const folder = join(hostsDirectory, 'registry.example');
  mkdirSync(folder);
  const hosts = `server = "http://${registry.host}"\n[host."http://${mirror.host}"]\n`;
  writeFileSync(join(folder, 'hosts.toml'), hosts);
  const entry = addArtifact('one', TYPE, mirror);
  assert.deepEqual(await find('registry.example'), [entry]);
  assert.equal(registry.count(/referrers/), 0);
  mirror.hasReferrers = false;
  const own = addArtifact('two');
  assert.deepEqual(await find('registry.example'), [own]);
});

test('refuses names that would change the URL', async () => {
  const invalid = { code: ErrorCodes.InvalidArgument };
  await assert.rejects(client.referrers(registry.host, '../x', SUBJECT, TYPE), invalid);
  await assert.rejects(client.referrers(registry.host, 'x', 'latest', TYPE), invalid);
  assert.equal(registry.requests.length, 0);
});

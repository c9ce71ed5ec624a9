/**
 * Goal: a published artifact is listed and can be read, also if publishers meet; earlier ones are replaced, and nothing
 * of other programs is lost.
 * Method: a registry on loopback with and without the referrers API, and Debian's docker-registry, which has none.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, beforeEach, describe, type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { PrivateRegistry, registryUnfit } from '../../test/support/private-registry.js';
import { ReferrerRegistry } from '../../test/support/referrer-registry.js';
import { ErrorCodes } from '../errors.js';
import { parseArtifact } from '../oci/artifact.js';
import { sha256Of } from '../oci/digest.js';
import type { Descriptor } from '../oci/manifest.js';
import { OCI_INDEX, OCI_MANIFEST } from '../oci/media-types.js';
import { fallbackTagOf, type ReferrerDescriptor } from '../oci/referrer.js';
import { deleteArtifact, type NewArtifact, publishArtifact } from './publish-artifact.js';
import { RegistryClient } from './registry-client.js';
import { RegistryHosts } from './registry-hosts.js';
import { DEFAULT_LIMITS } from './registry-limits.js';

const TYPE = 'application/vnd.example.one';
const REPOSITORY = 'x/y';
const SUBJECT = subjectOf('the subject');
const TAG = fallbackTagOf(SUBJECT.digest);

const registry = await ReferrerRegistry.start();
const [client, other] = [newClient(), newClient()];
after(async () => {
  await client.close();
  await other.close();
  await registry.stop();
});
beforeEach(() => {
  registry.blobs.clear();
  registry.manifests.clear();
  registry.tags.clear();
  registry.requests.length = 0;
  registry.faults.length = 0;
  registry.hasReferrers = true;
  registry.needsToken = false;
  registry.allowsDelete = true;
  registry.delayMs = 0;
});

function newClient(): RegistryClient {
  return new RegistryClient({
    hosts: new RegistryHosts([]),
    credentials: { label: 'none', find: async () => undefined },
    limits: { ...DEFAULT_LIMITS, backoffMs: 1 },
  });
}

function subjectOf(name: string): Descriptor {
  return { mediaType: OCI_MANIFEST, digest: sha256Of(Buffer.from(name)), size: 7 };
}

function artifactOf(name: string, more: Partial<NewArtifact> = {}): NewArtifact {
  const content = Buffer.from(`content of ${name}`);
  const descriptor = {
    mediaType: 'application/x',
    digest: sha256Of(content),
    size: content.length,
  };
  return {
    artifactType: TYPE,
    annotations: { name },
    blobs: [{ descriptor, content }],
    ...more,
  };
}

const publish = (artifact: NewArtifact, by = client, host = registry.host, subject = SUBJECT) =>
  publishArtifact(by, host, REPOSITORY, subject, artifact);
const remove = ({ digest }: ReferrerDescriptor, host = registry.host) =>
  deleteArtifact(client, host, REPOSITORY, SUBJECT, digest);
async function namesAt(host = registry.host, subject = SUBJECT): Promise<string[]> {
  const found = await client.referrers(host, REPOSITORY, subject.digest, TYPE);
  return found.map(({ annotations }) => annotations['name'] ?? '').toSorted();
}
const replaces = ({ annotations }: ReferrerDescriptor) => annotations['name'] !== 'kept';
const indexPuts = () => registry.count(/^PUT .*manifests\/sha256-/);
function storeList(manifests: readonly unknown[], more: object = {}): void {
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, ...more, manifests };
  registry.addManifest(REPOSITORY, TAG, Buffer.from(JSON.stringify(index)), OCI_INDEX);
}

test('publishes with the API, and leaves the list to the registry', async () => {
  registry.needsToken = true;
  const entry = await publish(artifactOf('one'));
  const listed = await client.referrers(registry.host, REPOSITORY, SUBJECT.digest, TYPE);
  assert.deepEqual(listed, [entry]);
  assert.equal(indexPuts(), 0);
  const stored = await client.getManifest(registry.host, REPOSITORY, entry.digest);
  const parsed = parseArtifact(stored.bytes, stored.mediaType, 'it');
  assert.deepEqual(parsed.subject, SUBJECT);
  assert.deepEqual(parsed.layers, [artifactOf('one').blobs[0]?.descriptor]);
  const [layer] = parsed.layers;
  assert.equal(registry.blobs.get(layer?.digest ?? '')?.toString(), 'content of one');

  await publish(artifactOf('kept'));
  await publish(artifactOf('other type', { artifactType: 'application/other' }));
  await publish(artifactOf('two', { replaces }));
  assert.deepEqual(await namesAt(), ['kept', 'two']);
  assert.equal(registry.count(/^DELETE/), 2, 'one is challenged');
  // A second time: nothing is sent but the manifest.
  registry.requests.length = 0;
  await publish(artifactOf('two', { replaces }));
  assert.equal(registry.count(/^(POST|DELETE)/), 0);
  assert.deepEqual(await namesAt(), ['kept', 'two']);
});

test('publishes where earlier artifacts cannot be deleted', async () => {
  await publish(artifactOf('one'));
  registry.allowsDelete = false;
  await publish(artifactOf('two', { replaces }));
  registry.faults.push({ of: /^DELETE/, answer: { status: 403 } });
  await publish(artifactOf('three', { replaces }));
  assert.deepEqual(await namesAt(), ['one', 'three', 'two']);
});

test('keeps the list itself without the API', async () => {
  registry.hasReferrers = false;
  const entry = await publish(artifactOf('one'));
  await publish(artifactOf('kept'));
  assert.deepEqual(await namesAt(), ['kept', 'one']);
  const foreign = [
    { mediaType: 'a/b', digest: `sha512:${'0'.repeat(128)}`, size: 1 },
    { mediaType: OCI_MANIFEST, digest: entry.digest.replaceAll('a', 'b'), size: 9, own: 'field' },
  ];
  const present = new Map(foreign.map((each) => [`${REPOSITORY}@${each.digest}`, each]));
  for (const name of present.keys()) {
    registry.manifests.set(name, { bytes: Buffer.from('{}'), mediaType: 'a/b' });
  }
  const stored = registry.manifestAt(REPOSITORY, TAG)?.bytes.toString() ?? '';
  storeList([...JSON.parse(stored).manifests, ...foreign], { annotations: { own: 'field' } });
  await publish(artifactOf('two', { replaces }));
  assert.deepEqual(await namesAt(), ['kept', 'two']);
  const index = JSON.parse(registry.manifestAt(REPOSITORY, TAG)?.bytes.toString() ?? '');
  assert.deepEqual(index.manifests.slice(1, 3), foreign);
  assert.deepEqual(index.annotations, { own: 'field' });
  // Equal arguments again change nothing.
  const puts = indexPuts();
  await publish(artifactOf('two'));
  assert.equal(indexPuts(), puts);
});

test('never writes over another document at the tag', async () => {
  registry.hasReferrers = false;
  const image = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: SUBJECT, layers: [] };
  registry.addManifest(REPOSITORY, TAG, Buffer.from(JSON.stringify(image)), OCI_MANIFEST);
  await assert.rejects(publish(artifactOf('one')), {
    code: ErrorCodes.Corrupt,
    message: /sha256-/,
  });
  assert.equal(indexPuts(), 0);
});

test('adds its entry again after another writer has dropped it, three times at most', async () => {
  registry.hasReferrers = false;
  const foreign = { mediaType: OCI_MANIFEST, digest: sha256Of(Buffer.from('{}')), size: 2 };
  registry.addManifest(REPOSITORY, undefined, Buffer.from('{}'), OCI_MANIFEST);
  const overwrite = async (times: number) => {
    for (let i = 1; i <= times; i++) {
      while (indexPuts() < i || registry.manifestAt(REPOSITORY, TAG) === undefined) {
        await setImmediate();
      }
      storeList([foreign]);
    }
  };
  const [entry] = await Promise.all([publish(artifactOf('one')), overwrite(1)]);
  assert.deepEqual(await namesAt(), ['one']);
  const index = JSON.parse(registry.manifestAt(REPOSITORY, TAG)?.bytes.toString() ?? '');
  assert.deepEqual(index.manifests, [foreign, entry]);

  registry.tags.clear();
  registry.requests.length = 0;
  const failing = assert.rejects(publish(artifactOf('two')), {
    code: ErrorCodes.Busy,
    message: /x\/y:sha256-.*3 times; try again/,
  });
  await Promise.all([failing, overwrite(3)]);
});

test('drops entries without a manifest if the registry refuses them', async () => {
  registry.hasReferrers = false;
  const one = await publish(artifactOf('one'));
  await publish(artifactOf('two'));
  registry.manifests.delete(`${REPOSITORY}@${one.digest}`);
  await publish(artifactOf('three'));
  assert.deepEqual(await namesAt(), ['three', 'two']);
  const refuse = { of: /^PUT .*manifests.sha256-/, answer: { status: 400 } };
  registry.faults.push(refuse, refuse, refuse);
  await assert.rejects(publish(artifactOf('four')), { code: ErrorCodes.Registry });
  assert.deepEqual(await namesAt(), ['three', 'two']);
});

test('ends with the signal of the caller', async () => {
  registry.hasReferrers = false;
  const controller = new AbortController();
  const { signal } = controller;
  const published = publishArtifact(
    client,
    registry.host,
    REPOSITORY,
    SUBJECT,
    artifactOf('one'),
    signal,
  );
  while (indexPuts() === 0) await setImmediate();
  controller.abort(new RangeError('enough'));
  await assert.rejects(published, RangeError);
});

test('reports a registry that refuses the artifact', async () => {
  const refuse = { of: /^PUT .*manifests/, answer: { status: 400 } };
  registry.faults.push(refuse, refuse, refuse);
  await assert.rejects(publish(artifactOf('one')), { code: ErrorCodes.Registry });
  registry.faults.push(refuse, refuse);
  await publish(artifactOf('one'));
  registry.faults.push({ of: /^PUT .*manifests/, answer: 'drop' });
  await publish(artifactOf('one'));
  assert.deepEqual(await namesAt(), ['one']);
  const annotations = { a: 'x'.repeat(20_000) };
  await assert.rejects(publish(artifactOf('one', { annotations })), {
    code: ErrorCodes.InvalidArgument,
  });
});

test('deletes artifacts with the API', async () => {
  registry.needsToken = true;
  const entry = await publish(artifactOf('one'));
  registry.allowsDelete = false;
  await assert.rejects(remove(entry), { code: ErrorCodes.Unsupported, message: /enable it there/ });
  registry.allowsDelete = true;
  await remove(entry);
  await remove(entry);
  assert.deepEqual(await namesAt(), []);
  assert.equal(indexPuts(), 0);
});

test('deletes artifacts without the API', async () => {
  registry.hasReferrers = false;
  const [one, two] = [await publish(artifactOf('one')), await publish(artifactOf('two'))];
  await remove(one);
  assert.deepEqual(await namesAt(), ['two']);
  assert.equal(registry.manifestAt(REPOSITORY, one.digest), undefined);
  registry.allowsDelete = false;
  await remove(two);
  assert.deepEqual(await namesAt(), []);
});

const BOTH = Array<string[]>(10).fill(['one', 'two']);

/** Ten subjects at once, two publishers each. Returns the names that are listed in the end, of each subject. */
async function meet(host: string, more: Partial<NewArtifact> = {}): Promise<string[][]> {
  const rounds = Array.from({ length: 10 }, async (_, i) => {
    const subject = subjectOf(`subject ${i} ${randomBytes(4).toString('hex')}`);
    await Promise.all([
      publish(artifactOf('one', more), client, host, subject),
      publish(artifactOf('two', more), other, host, subject),
    ]);
    return await namesAt(host, subject);
  });
  return await Promise.all(rounds);
}

for (const hasReferrers of [true, false]) {
  const api = hasReferrers ? 'with' : 'without';
  test(`two publishers that meet are both listed, ${api} the API`, async () => {
    registry.hasReferrers = hasReferrers;
    registry.delayMs = 10;
    assert.deepEqual(await meet(registry.host), BOTH);
    const replacing = await meet(registry.host, { replaces: () => true });
    assert.ok(replacing.every(({ length }) => length > 0));
  });
}

describe("Debian's docker-registry", { skip: registryUnfit }, () => {
  async function start(context: TestContext): Promise<string> {
    const debian = await PrivateRegistry.start();
    context.after(() => debian.stop());
    return debian.host;
  }

  test('publishes, replaces and deletes', async (context) => {
    const host = await start(context);
    const one = await publish(artifactOf('one'), client, host);
    await publish(artifactOf('kept'), client, host);
    assert.deepEqual(await namesAt(host), ['kept', 'one']);
    const found = await client.getManifest(host, REPOSITORY, one.digest);
    assert.deepEqual(parseArtifact(found.bytes, found.mediaType, 'it').subject, SUBJECT);
    const two = await publish(artifactOf('two', { replaces }), client, host);
    assert.deepEqual(await namesAt(host), ['kept', 'two']);
    // Its manifests cannot be deleted by default, but the list can be changed.
    await remove(two, host);
    assert.deepEqual(await namesAt(host), ['kept']);
    await assert.rejects(remove(two, host), { code: ErrorCodes.Unsupported });
  });

  test('lists both of two publishers that meet', async (context) => {
    assert.deepEqual(await meet(await start(context)), BOTH);
  });
});

/**
 * Goal: a pull takes over a layer only if every snapshot that containerd may choose is right for it: bytes that were
 * checked, or unchecked bytes of the same registry, and of the same namespace if so configured.
 * Method: a store with layers of every kind, and pulls from registries that have the blob, refuse it, or are not known.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { registryAddress } from '../registry/registry-hosts.js';
import type { LayerOrigin, WantedLayer } from './image-locator.js';
import { LayerSharing } from './layer-sharing.js';
import type { Layer } from './snapshot.js';
import { SnapshotStore } from './snapshot-store.js';

const REF = 'ref';
const DIGEST = `sha256:${'a'.repeat(64)}`;
const WANTED: WantedLayer = { chainId: DIGEST, digest: DIGEST, sizeBytes: 7, lower: {} };
const GOOD = 'https://good.example/v2/app/blobs';
const EVIL = 'https://evil.example/v2/app/blobs';
const remote = (repoBlobUrl: string): Layer => ({
  type: 'blocks',
  lower: { digest: DIGEST, size: 7, repoBlobUrl },
  fileSystem: 'ext4',
});
const LOCAL: Layer = { type: 'blocks', lower: {}, fileSystem: 'ext4', file: 'overlaybd.commit' };

let folder: string;
let store: SnapshotStore;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sharing-'));
  store = SnapshotStore.open(join(folder, 'db'));
});
afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true });
});

interface Added {
  readonly chainId?: string | undefined;
  readonly namespaces?: readonly string[];
}

function add(name: string, layer: Layer, { chainId = DIGEST, namespaces = [] }: Added = {}): void {
  const id = store.nextId();
  const labels = { [REF]: DIGEST };
  const proved = chainId === '' ? undefined : chainId;
  store.insert({
    id,
    name,
    parent: '',
    kind: 'committed',
    labels,
    layer,
    chainId: proved,
    namespaces,
  });
}

/** An origin that gives the blob, or not. */
function from(url: string, { gives = true, login = false, isKnown = true } = {}): LayerOrigin {
  return {
    registry: isKnown ? registryAddress(url) : undefined,
    repoBlobUrl: async () => (gives ? url : undefined),
    hasNamespaceLogin: async () => login,
  };
}

async function decide(origin: LayerOrigin, namespace = 'ns', between = true, wanted = WANTED) {
  const known = store.committedWithLabel('', REF, DIGEST);
  return await new LayerSharing(store, between).decide(known, wanted, origin, namespace);
}

test('an unknown layer is fetched from its registry, or downloaded', async () => {
  assert.deepEqual(await decide(from(GOOD)), { repoBlobUrl: GOOD });
  assert.ok('download' in (await decide(from(GOOD, { gives: false }))));
});

test('a lazy layer keeps its hash tree, and is not taken over by a pull that names another', async () => {
  const [first, second] = ['b', 'c'].map((digit) => `sha256:${digit.repeat(64)}`) as [
    string,
    string,
  ];
  const layer = remote(GOOD);
  assert.ok(layer.type === 'blocks');
  const lower = { ...layer.lower, hashTree: { root: first, offset: 4096 } };
  add('proved', { ...layer, lower });
  const wants = (root: string) => ({ ...WANTED, lower: { hashTree: { root, offset: 4096 } } });
  assert.deepEqual(await decide(from(GOOD), 'ns', true, wants(first)), { existing: 'proved' });
  assert.deepEqual(await decide(from(GOOD)), { existing: 'proved' });
  const decision = await decide(from(GOOD), 'ns', true, wants(second));
  assert.ok('download' in decision);
  assert.match(
    decision.download,
    new RegExp(`"proved" is .* ${first}, which it keeps, .* ${second}`),
  );
  assert.deepEqual(store.get('proved').layer, { ...layer, lower });
});

test('a lazy layer is taken over by pulls from its registry alone', async () => {
  add('lazy', remote(EVIL));
  assert.deepEqual(await decide(from(EVIL)), { existing: 'lazy' });
  assert.deepEqual(await decide(from(EVIL, { isKnown: false })), { existing: 'lazy' });
  for (const origin of [
    from(GOOD),
    from('https://evil.example:444/v2/app/blobs'),
    from(GOOD, { isKnown: false }),
    from(EVIL, { isKnown: false, gives: false }),
  ]) {
    const decision = await decide(origin);
    assert.match('download' in decision ? decision.download : '', /registry evil\.example:443/);
  }
});

test('a layer that containerd checked is taken over by all, and so is one of several if all may be', async () => {
  add('local', LOCAL);
  assert.deepEqual(await decide(from(GOOD)), { existing: 'local' });
  add('lazy', remote(EVIL));
  assert.deepEqual(await decide(from(EVIL)), { existing: 'local' });
  assert.ok('download' in (await decide(from(GOOD))));
});

test('a layer that is not proved, plain, or of another size is not shared', async () => {
  add('lazy', remote(GOOD));
  assert.ok('download' in (await decide(from(GOOD), 'ns', true, { ...WANTED, sizeBytes: 8 })));
  for (const [layer, chainId] of [
    [remote(GOOD), ''],
    [LOCAL, ''],
    [LOCAL, `sha256:${'b'.repeat(64)}`],
    [{ type: 'files' }, DIGEST],
  ] as const) {
    add('another', layer, { chainId });
    assert.ok('download' in (await decide(from(GOOD))), layer.type);
    store.remove('another');
  }
});

test('without sharing, a namespace needs a login for layers of other namespaces', async () => {
  const decided = (origin: LayerOrigin, namespace: string) => decide(origin, namespace, false);
  assert.deepEqual(await decided(from(GOOD), 'first'), { repoBlobUrl: GOOD });
  add('lazy', remote(GOOD), { namespaces: ['first'] });
  assert.deepEqual(await decided(from(GOOD), 'first'), { existing: 'lazy' });
  for (const origin of [from(GOOD), from(GOOD, { login: true, gives: false })]) {
    assert.ok('download' in (await decided(origin, 'second')));
    assert.ok('download' in (await decided(origin, '')));
  }
  assert.deepEqual(await decided(from(GOOD, { login: true }), 'second'), { existing: 'lazy' });
  // A login may be withdrawn, and from the first as well.
  for (const namespace of ['first', 'second']) {
    const without = await decided(from(GOOD), namespace);
    assert.equal('download' in without, namespace === 'second');
    const withdrawn = from(GOOD, { login: true, gives: false });
    assert.ok('download' in (await decided(withdrawn, namespace)));
    const granted = from(GOOD, { login: true });
    assert.deepEqual(await decided(granted, namespace), { existing: 'lazy' });
  }
});

test('without sharing, a blob that another namespace has on another parent counts too', async () => {
  const other = `sha256:${'c'.repeat(64)}`;
  add('elsewhere', remote(GOOD), { chainId: other, namespaces: ['first'] });
  const wanted = { ...WANTED, chainId: `sha256:${'d'.repeat(64)}` };
  const sharing = new LayerSharing(store, false);
  assert.ok('download' in (await sharing.decide([], wanted, from(GOOD), 'second')));
  assert.deepEqual(await sharing.decide([], wanted, from(GOOD), 'first'), { repoBlobUrl: GOOD });
});

test('a layer that is taken over is fetched from the repository of the latest pull', async () => {
  const copy = 'https://good.example/v2/copy/blobs';
  add('first', remote(copy));
  assert.deepEqual(await decide(from(GOOD)), { existing: 'first' });
  assert.deepEqual(store.get('first').layer, remote(GOOD));
  // A repository that does not give the layer is not taken.
  assert.deepEqual(await decide(from(copy, { gives: false })), { existing: 'first' });
  assert.deepEqual(store.get('first').layer, remote(GOOD));
});

/**
 * Goal: a layer is served from the registry that has it; a layer that cannot be found gets no snapshot. A failed
 * containerd call is retried, as otherwise an image would be downloaded until this daemon is restarted.
 * Method: a content store of one manifest, on a real socket, whose reads fail as often as a test says, and a registry.
 * Against a real containerd: test/e2e/snapshotter-images.test.ts.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { type ErrorCode, ErrorCodes, ObdError } from '../errors.js';
import type {
  ContentDefinition,
  ContentHandlers,
} from '../grpc/gen/containerd/services/content/v1/Content.js';
import { GrpcServer, type Implementation, service } from '../grpc/grpc-server.js';
import { loadService } from '../grpc/proto.js';
import type { LayerKind } from '../layers/layer-kind.js';
import { sha256Of } from '../oci/digest.js';
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from '../oci/media-types.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { type ExpectingDaemon, ImageLocator } from './image-locator.js';
import type { ProbingDaemon } from './registry-probes.js';
import type { Snapshot } from './snapshot.js';

const LAYER = sha256Of(Buffer.from('layer'));

interface Stored {
  readonly bytes: Buffer;
  readonly labels: Readonly<Record<string, string>>;
}

const SOURCE = 'containerd.io/distribution.source.';
const ours = { [`${SOURCE}localhost`]: 'team/app' };
const evil = { [`${SOURCE}evil.invalid`]: 'team/app' };

/** A manifest with the layer, unless another digest is given; `more` makes it another one. */
function manifestOf(more = '', layer = LAYER, annotations = {}): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: { mediaType: OCI_CONFIG, digest: sha256Of(Buffer.from('config')), size: 1 },
      annotations: { more },
      layers: [{ mediaType: OCI_LAYER_TAR, digest: layer, size: 1, annotations }],
    }),
  );
}

const OURS: Stored = { bytes: manifestOf(), labels: ours };

/** Cuts digests in two. */
const PIECE_BYTES = (1 << 20) - 7;

const directory = mkdtempSync(join(tmpdir(), 'obd-locator-'));
const containerdSocket = join(directory, 'containerd.sock');
const limits = { ...DEFAULT_LIMITS, attemptsMax: 1 };
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
/** The blobs of the content store. */
let stored: readonly Stored[] = [OURS];
let failures = 0;
let failure: ErrorCode = ErrorCodes.Unavailable;
let reads = 0;
let server: GrpcServer;
let origin: LoopbackRegistry;
let hosts: RegistryHosts;
let registry: RegistryClient;

before(async () => {
  origin = await LoopbackRegistry.start();
  origin.addBlob(Buffer.from('layer'));
  hosts = new RegistryHosts([], { localhost: origin.host });
  registry = new RegistryClient({ hosts, credentials: new DockerCredentials(), limits });
  const definition = loadService<ContentDefinition>(
    'containerd/services/content/v1/content.proto',
    'containerd.services.content.v1.Content',
  );
  const content: Pick<Implementation<ContentHandlers>, 'List' | 'Read'> = {
    List: async function* () {
      yield {
        info: stored.map(({ bytes, labels }) => ({
          digest: sha256Of(bytes),
          size: bytes.length,
          labels,
        })),
      };
    },
    Read: async function* ({ digest }) {
      reads++;
      if (failures-- > 0) throw new ObdError(failure, 'not now');
      const found = stored.find(({ bytes }) => sha256Of(bytes) === digest);
      for (let at = 0, all = found?.bytes ?? Buffer.alloc(0); at < all.length; at += PIECE_BYTES) {
        yield { data: all.subarray(at, at + PIECE_BYTES) };
      }
    },
  };
  const parts = service<ContentHandlers>(definition, content as Implementation<ContentHandlers>);
  server = await GrpcServer.listen(containerdSocket, [parts], log);
});
after(async () => {
  await server.close(0);
  await registry.close();
  await origin.close();
  rmSync(directory, { recursive: true });
});

afterEach(() => {
  stored = [OURS];
  failures = 0;
  failure = ErrorCodes.Unavailable;
});

const WANTED = { chainId: LAYER, digest: LAYER, sizeBytes: 'layer'.length, lower: {} };
/** Of a version before: the snapshotter asks the registry itself. */
const unsupported = async () => {
  throw new ObdError(ErrorCodes.Unsupported, 'no such call');
};
const daemon = { probe: unsupported, expect: unsupported };
const kinds: readonly LayerKind[] = [
  {
    name: 'blocks',
    holds: 'blocks',
    unpackedName: undefined,
    annotationPrefix: undefined,
    isDescribedBy: ({ annotations }) => annotations?.['blocks'] !== undefined,
    describe: ({ digest = '', size = 0 }) => ({
      holds: 'blocks',
      lower: { digest, size },
      fileSystem: 'ext4',
    }),
    recognizes: () => false,
  },
];
const newLocator = () =>
  new ImageLocator({
    containerdSocket,
    hosts,
    daemon,
    kinds,
    registry,
    namespaces: new Map(),
    log,
  });
const locate = async (
  locator: ImageLocator,
  labels: Record<string, string> = {},
  namespace: string | undefined = 'default',
) => (await locator.origin(WANTED, labels, namespace)).repoBlobUrl();

test('the port that labels have lost comes from the configuration', async () => {
  const locator = newLocator();
  assert.equal(await locate(locator), `http://${origin.host}/v2/team/app/blobs`);
});

test('a layer that is not where the labels lead is not served from there', async () => {
  origin.faults.push({ status: 404 });
  const locator = newLocator();
  assert.equal(await locate(locator), undefined);
});

test('a manifest is read once', async () => {
  const locator = newLocator();
  reads = 0;
  await locate(locator);
  await locate(locator);
  assert.equal(reads, 1);
});

test('a manifest that could not be read is read again the next time', async () => {
  const locator = newLocator();
  failures = 1;
  assert.equal(await locate(locator), undefined);
  assert.equal(await locate(locator), `http://${origin.host}/v2/team/app/blobs`);
});

test('the registry confirms the reference of a client; content labels are the second choice', async () => {
  stored = [{ bytes: manifestOf(), labels: { [`${SOURCE}127.0.0.1`]: 'other/app', ...ours } }];
  // A new one each time: answers are kept.
  const labels = { 'containerd.io/snapshot/cri.image-ref': `${origin.host}/other/app:1` };
  const found = await locate(newLocator(), labels);
  assert.equal(found, `http://${origin.host}/v2/other/app/blobs`);
  // The answer of a registry whose login the client has, and we have not.
  origin.faults.push({ status: 403 });
  const second = await locate(newLocator(), labels);
  assert.equal(second, `http://${origin.host}/v2/team/app/blobs`);
  const { repoBlobUrl } = await newLocator().origin(WANTED, labels, undefined);
  assert.equal(await repoBlobUrl(), undefined);
});

test('an image does not choose its registry by a label', async () => {
  const lure = await LoopbackRegistry.start();
  lure.addBlob(Buffer.from('layer'));
  const at = `http://${origin.host}/v2/team/app/blobs`;
  const label = 'containerd.io/snapshot/cri.image-ref';
  const fromThere = { [`${SOURCE}127.0.0.1`]: 'team/app' };
  const elsewhere = { bytes: manifestOf('', sha256Of(Buffer.from('below'))), labels: fromThere };
  const annotated = (reference: string) => manifestOf('', LAYER, { [label]: reference });
  const cases: readonly (readonly [string, string, readonly Stored[]])[] = [
    ['a host that nothing was pulled from', `${lure.host}/team/app:1`, [OURS]],
    ['a host that another image is from', `${lure.host}/team/app:1`, [OURS, elsewhere]],
    [
      'another repository of a host',
      `${lure.host}/x/y:1`,
      [{ bytes: manifestOf(), labels: { ...ours, ...fromThere } }],
    ],
    [
      'another port of a host, as an annotation',
      `localhost:${lure.host.split(':')[1]}/team/app:1`,
      [{ bytes: annotated(`localhost:${lure.host.split(':')[1]}/team/app:1`), labels: ours }],
    ],
  ];
  try {
    for (const [what, reference, all] of cases) {
      stored = all;
      const found = await newLocator().origin(WANTED, { [label]: reference }, 'default');
      const isOneKnown = what !== 'another repository of a host';
      assert.equal(await found.repoBlobUrl(), isOneKnown ? at : undefined, what);
    }
    assert.deepEqual(lure.seen, []);
    // The image's annotation does not override the client's label.
    stored = [{ bytes: annotated('evil.invalid/team/app:1'), labels: fromThere }];
    const labels = { [label]: `${origin.host}/team/app:1` };
    assert.equal(await locate(newLocator(), labels), at);
  } finally {
    await lure.close();
  }
});

/** A manifest of layers that can be served lazily. */
function blocksManifest(layers: readonly (readonly [digest: string, size: number])[]): Buffer {
  const manifest = JSON.parse(manifestOf().toString());
  manifest.layers = layers.map(([digest, size]) => ({
    ...{ mediaType: OCI_LAYER_TAR, digest, size },
    annotations: { blocks: '' },
  }));
  return Buffer.from(JSON.stringify(manifest));
}

test('all layers of the image are asked for at the same time, by the daemon', async () => {
  const others = ['next', 'another', 'the last'].map((text) => origin.addBlob(Buffer.from(text)));
  const plain = sha256Of(Buffer.from('plain'));
  const sizes = ['next', 'another', 'the last'].map((text) => text.length);
  const layers = [[LAYER, 5] as const, ...others.map((each, i) => [each, sizes[i]!] as const)];
  const mixed = JSON.parse(blocksManifest(layers).toString());
  mixed.layers.push({ mediaType: OCI_LAYER_TAR, digest: plain, size: 1 });
  stored = [{ bytes: Buffer.from(JSON.stringify(mixed)), labels: ours }];
  const asked: [string, number][] = [];
  const probe: ProbingDaemon['probe'] = async ({ digest, sizeBytes }, parts) => {
    assert.deepEqual(parts[0], { offset: 0, length: sizeBytes }, 'all of a small blob');
    asked.push([digest, sizeBytes]);
  };
  const expected: Parameters<ExpectingDaemon['expect']>[0][] = [];
  const expect: ExpectingDaemon['expect'] = async (image) => {
    expected.push(image);
  };
  const parts = { containerdSocket, hosts, daemon: { probe, expect }, kinds };
  const locator = new ImageLocator({ ...parts, registry, namespaces: new Map(), log });
  origin.seen.length = 0;
  const labels = { 'containerd.io/snapshot/cri.image-ref': 'localhost/team/app:1' };
  const named = { 'containerd.io/snapshot/obd-ts.load-order': 'again' };
  for (const [round, more] of [
    [1, {}],
    [2, named],
  ] as const) {
    const found = await locate(locator, { ...labels, ...more });
    assert.equal(found, `http://${origin.host}/v2/team/app/blobs`);
    const all = layers.map(([digest, size]) => [digest, size]);
    assert.deepEqual(asked.toSorted(), all.toSorted(), `each once, in call ${round}`);
    assert.deepEqual(asked[0], all[0], 'the one that is waited for is the first in the queue');
  }
  assert.equal(origin.seen.length, 0, 'the daemon asks, not the snapshotter');
  const untilMs = performance.now() + 5_000;
  while (expected.length < 2 && performance.now() < untilMs) await new Promise(setImmediate);
  assert.deepEqual(
    expected.map(({ orderNames }) => orderNames),
    [[], ['again']],
    'the daemon is told of the image by each pull',
  );
  const [image] = expected;
  assert.deepEqual([image?.host, image?.repository], [origin.host, 'team/app']);
  assert.equal(image?.manifest, sha256Of(stored[0]!.bytes));
  assert.deepEqual(
    image?.layers.map(({ digest, sizeBytes }) => [digest, sizeBytes]),
    layers.map(([digest, size]) => [digest, size]),
  );
});

test('the daemon is told what labels, annotations and the config say of the start', async () => {
  const expected: Parameters<ExpectingDaemon['expect']>[0][] = [];
  const expect: ExpectingDaemon['expect'] = async (image) => {
    expected.push(image);
  };
  const config = Buffer.from(
    JSON.stringify({
      ...{
        architecture: 'amd64',
        os: 'linux',
        rootfs: { type: 'layers', diff_ids: [sha256Of(Buffer.from('tar'))] },
      },
      config: { Entrypoint: ['/entry'], Cmd: ['serve  all'] },
    }),
  );
  const manifest = JSON.parse(blocksManifest([[LAYER, 5]]).toString());
  manifest.config = { mediaType: OCI_CONFIG, digest: sha256Of(config), size: config.length };
  manifest.annotations = { 'dev.obd-ts.load-order.name': 'usual' };
  stored = [
    { bytes: Buffer.from(JSON.stringify(manifest)), labels: ours },
    { bytes: config, labels: {} },
  ];
  const parts = { containerdSocket, hosts, daemon: { probe: async () => {}, expect }, kinds };
  const locator = new ImageLocator({ ...parts, registry, namespaces: new Map(), log });
  const lower = { digest: LAYER, size: 5, repoBlobUrl: `http://${origin.host}/v2/team/app/blobs` };
  const top = { chainId: LAYER, layer: { type: 'blocks', lower, fileSystem: 'ext4' } } as Snapshot;
  const own = 'containerd.io/snapshot/obd-ts';
  await locator.expectStart({ top, layers: [top] }, { [`${own}.fill`]: 'true' }, 'default');
  await locator.expectStart(undefined, { [`${own}.command`]: 'sh' }, 'default');
  assert.equal(expected.length, 0, 'nothing is said of the start');
  await locator.expectStart(
    { top, layers: [top] },
    { [`${own}.command`]: ' sh   -c true', [`${own}.load-order`]: 'batch' },
    'default',
  );
  await locate(locator, { [`${own}.load-order`]: 'web' });
  const untilMs = performance.now() + 5_000;
  while (expected.length < 2 && performance.now() < untilMs) await new Promise(setImmediate);
  const imageCommand = sha256Of(Buffer.from('/entry serve all'));
  const about = { host: origin.host, repository: 'team/app', imageCommand };
  assert.deepEqual(
    expected.map(({ host, repository, command, imageCommand, orderNames }) => {
      return { host, repository, command, imageCommand, orderNames };
    }),
    [
      { ...about, command: sha256Of(Buffer.from('sh -c true')), orderNames: ['batch', 'usual'] },
      { ...about, command: '', orderNames: ['web', 'usual'] },
    ],
  );
});

test('what the daemon says of the registry counts, and the registry is asked without it', async () => {
  const registryUrl = `http://${origin.host}/v2/team/app/blobs`;
  for (const [code, found] of [
    [ErrorCodes.NotFound, undefined],
    [ErrorCodes.Unauthorized, undefined],
    [ErrorCodes.Registry, undefined],
    [ErrorCodes.Unavailable, registryUrl],
    [ErrorCodes.Unsupported, registryUrl],
    [ErrorCodes.FailedPrecondition, registryUrl],
    [ErrorCodes.Host, registryUrl],
    [ErrorCodes.Io, registryUrl],
  ] as const) {
    const probe = async () => {
      throw new ObdError(code, 'no');
    };
    const parts = { containerdSocket, hosts, daemon: { probe, expect: unsupported }, kinds };
    const locator = new ImageLocator({ ...parts, registry, namespaces: new Map(), log });
    assert.equal(await locate(locator), found, code);
  }
});

test('a manifest with the layer that does not say where it is from leaves no registry', async () => {
  const at = `http://${origin.host}/v2/team/app/blobs`;
  const huge = 'x'.repeat(5 << 20);
  const otherLayer = sha256Of(Buffer.from('other'));
  const broken = Buffer.from(`{"schemaVersion": 3, "layers": ["${LAYER}"]}`);
  const cases: readonly (readonly [string, Stored, string | undefined])[] = [
    ['no label', { bytes: manifestOf('a'), labels: {} }, undefined],
    [
      'a label that is odd',
      { bytes: manifestOf('a'), labels: { [`${SOURCE}a b`]: 'x' } },
      undefined,
    ],
    ['another registry', { bytes: manifestOf('a'), labels: evil }, undefined],
    ['the same registry', { bytes: manifestOf('a'), labels: ours }, at],
    ['another layer, no label', { bytes: manifestOf('a', otherLayer), labels: {} }, at],
    ['too large, no label', { bytes: manifestOf(huge), labels: {} }, undefined],
    ['too large, another registry', { bytes: manifestOf(huge), labels: evil }, undefined],
    ['too large, another layer', { bytes: manifestOf(huge, otherLayer), labels: {} }, at],
    ['broken, no label', { bytes: broken, labels: {} }, undefined],
    ['broken, another layer', { bytes: Buffer.from('{'), labels: {} }, at],
  ];
  for (const [what, added, expected] of cases) {
    for (const all of [
      [OURS, added],
      [added, OURS],
    ]) {
      stored = all;
      const found = await newLocator().origin(WANTED, {}, 'default');
      assert.equal(await found.repoBlobUrl(), expected, what);
      assert.equal(found.registry, expected === undefined ? undefined : origin.host, what);
    }
  }
});

test('a manifest that cannot be read now may have the layer, and one that has gone has not', async () => {
  const locator = newLocator();
  stored = [{ bytes: manifestOf('victim'), labels: evil }, OURS];
  failures = 1;
  assert.equal(await locate(locator), undefined);
  failures = 1;
  failure = ErrorCodes.NotFound;
  assert.equal(await locate(locator), `http://${origin.host}/v2/team/app/blobs`);
  assert.equal(await locate(locator), undefined);
});

test('a hosts.toml that is wrong makes an origin unknown, and nothing fails', async () => {
  const certs = join(directory, 'certs.d');
  mkdirSync(join(certs, '_default'), { recursive: true });
  writeFileSync(join(certs, '_default', 'hosts.toml'), 'server = [');
  const wrong = new RegistryHosts([], {}, certs);
  const client = new RegistryClient({ hosts: wrong, credentials: new DockerCredentials(), limits });
  const parts = {
    ...{ containerdSocket, hosts: wrong, daemon, kinds },
    ...{ registry: client, namespaces: new Map(), log },
  };
  const locator = new ImageLocator(parts);
  const named = { 'containerd.io/snapshot/image-ref': `${origin.host}/team/app:1` };
  for (const labels of [{}, named]) {
    const found = await locator.origin(WANTED, labels, 'default');
    assert.equal(found.registry, undefined);
    assert.equal(await found.repoBlobUrl(), undefined);
    assert.equal(await found.hasNamespaceLogin(), false);
  }
  await client.close();
});

test('an address without a clear answer leaves the origin unknown', async () => {
  const other = await LoopbackRegistry.start();
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const certs = join(directory, 'ports');
  const at = (port: number) => mkdirSync(join(certs, `127.0.0.1:${port}`), { recursive: true });
  const ports = [origin.host, other.host].map((host) => Number(host.split(':')[1]));
  for (const port of ports) at(port);
  stored = [{ bytes: manifestOf(), labels: { [`${SOURCE}127.0.0.1`]: 'team/app' } }];
  const located = async () => {
    const found = new RegistryHosts([], {}, certs);
    const settings = { hosts: found, credentials: new DockerCredentials(), limits };
    const client = new RegistryClient(settings);
    const parts = {
      ...{ containerdSocket, hosts: found, daemon, kinds },
      ...{ registry: client, namespaces: new Map(), log },
    };
    try {
      return await (await new ImageLocator(parts).origin(WANTED, {}, 'default')).repoBlobUrl();
    } finally {
      await client.close();
    }
  };
  try {
    // The other registry has no such blob, and nothing listens at ports 80 and 443.
    assert.equal(await located(), `http://${origin.host}/v2/team/app/blobs`);
    for (let i = 0; i < 4; i++) other.faults.push({ status: 503 });
    assert.equal(await located(), undefined);
    other.faults.length = 0;
    assert.equal(await located(), `http://${origin.host}/v2/team/app/blobs`);
    at((silent.address() as AddressInfo).port);
    assert.equal(await located(), undefined);
  } finally {
    silent.close();
    await other.close();
  }
});

test('an origin must give the blob to the login of the namespace and to the login of obd-blockd', async () => {
  const own = { credentials: new DockerCredentials(), registry };
  for (const refused of [0, 1, 2]) {
    const common = new RegistryClient({ hosts, credentials: new DockerCredentials(), limits });
    const namespaces = new Map([['team', own]]);
    const locator = new ImageLocator({
      containerdSocket,
      hosts,
      daemon,
      kinds,
      registry: common,
      namespaces,
      log,
    });
    for (let i = 0; i < refused; i++) origin.faults.push({ status: 403 });
    const expected = refused === 0 ? `http://${origin.host}/v2/team/app/blobs` : undefined;
    assert.equal(await locate(locator, {}, 'team'), expected);
    await common.close();
  }
});

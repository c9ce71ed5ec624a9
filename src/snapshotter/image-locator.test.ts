/**
 * Goal: a layer is served from where it really is, and where it cannot be found that is no snapshot; what containerd could
 * not tell once is asked again, as otherwise an image would be downloaded until this daemon is restarted.
 * Method: a content store of one manifest, on a real socket, whose reads fail as often as a test says, and a registry.
 * Against a real containerd: test/e2e/snapshotter-images.test.ts.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { LoopbackRegistry } from '../../test/support/loopback-registry.js';
import { ErrorCodes, ObdError } from '../errors.js';
import type {
  ContentDefinition,
  ContentHandlers,
} from '../grpc/gen/containerd/services/content/v1/Content.js';
import { GrpcServer, type Implementation, service } from '../grpc/grpc-server.js';
import { loadService } from '../grpc/proto.js';
import { sha256Of } from '../registry/digest.js';
import { DockerCredentials } from '../registry/docker-credentials.js';
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from '../registry/media-types.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DEFAULT_LIMITS } from '../registry/registry-limits.js';
import { ImageLocator } from './image-locator.js';

const LAYER = sha256Of(Buffer.from('layer'));
const MANIFEST = Buffer.from(
  JSON.stringify({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: { mediaType: OCI_CONFIG, digest: sha256Of(Buffer.from('config')), size: 1 },
    layers: [{ mediaType: OCI_LAYER_TAR, digest: LAYER, size: 1 }],
  }),
);

const directory = mkdtempSync(join(tmpdir(), 'obd-locator-'));
const containerdSocket = join(directory, 'containerd.sock');
const limits = { ...DEFAULT_LIMITS, attemptsMax: 1 };
const log = { info: () => {}, warn: () => {}, error: () => {} };
let failures = 0;
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
      const labels = { 'containerd.io/distribution.source.localhost': 'team/app' };
      yield { info: [{ digest: sha256Of(MANIFEST), size: MANIFEST.length, labels }] };
    },
    Read: async function* () {
      reads++;
      if (failures-- > 0) throw new ObdError(ErrorCodes.Unavailable, 'not now');
      yield { data: MANIFEST };
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

const WANTED = { chainId: LAYER, digest: LAYER, sizeBytes: 'layer'.length };
const newLocator = () =>
  new ImageLocator({ containerdSocket, hosts, registry, namespaces: new Map(), log });
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

test('what a client says of a layer is asked of the registry too, and content labels after it', async () => {
  // A new one each time: answers are kept.
  const labels = { 'containerd.io/snapshot/cri.image-ref': `${origin.host}/other/app:1` };
  const found = await locate(newLocator(), labels);
  assert.equal(found, `http://${origin.host}/v2/other/app/blobs`);
  // As a registry answers whose login the client has, and we have not.
  origin.faults.push({ status: 403 });
  const second = await locate(newLocator(), labels);
  assert.equal(second, `http://${origin.host}/v2/team/app/blobs`);
  origin.faults.push({ status: 403 });
  const { repoBlobUrl } = await newLocator().origin(WANTED, labels, undefined);
  assert.equal(await repoBlobUrl(), undefined);
});

test('the layers that follow are asked for at the same time', async () => {
  const next = origin.addBlob(Buffer.from('next'));
  const locator = newLocator();
  const labels = {
    'containerd.io/snapshot/cri.image-ref': `${origin.host}/team/app:1`,
    'containerd.io/snapshot/cri.image-layers': `${LAYER},${next}`,
  };
  origin.seen.length = 0;
  await locate(locator, labels);
  while (origin.seen.length < 2) await setTimeout(10);
  const asked = origin.seen.map(({ path }) => path.slice('/v2/team/app/blobs/'.length));
  assert.deepEqual(asked, [LAYER, next]);
});

/**
 * Goal: obd-ts finds an unconfigured registry at its port, with or without TLS. An unreachable registry costs a pull two
 * seconds, not ten for each layer.
 * Method: Debian's containerd with CRI that sends no references, the minimum for a client; obd-ts with real daemons and
 * registry; a listener that never answers; TLS in front of the registry.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { sha256Of } from '../../src/oci/digest.js';
import { OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from '../../src/oci/media-types.js';
import { blockdUnfit } from '../support/blockd-process.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { CriClient } from '../support/cri-client.js';
import { criConfig, folderOfContainerd } from '../support/cri-containerd.js';
import { LayoutBuilder } from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { addProgram, goArchitecture, layerOf } from '../support/runnable-image.js';
import { SnapshotsClient } from '../support/snapshotter-process.js';
import { storeManifest } from '../support/stored-manifest.js';
import { TlsFront } from '../support/tls-front.js';
import { trustCase } from '../support/trust-case.js';

/** The last containerd whose CRI calls the snapshotter itself; later ones pull by the transfer service. */
const folderOfCri = folderOfContainerd([1, 6], [2, 0]);
const lacking =
  unfit || blockdUnfit || (folderOfCri === undefined && 'needs containerd 1.6 or 1.7 in PATH');
const skip = lacking === false ? undefined : lacking;
const SERVED = 'containerd.io/snapshot/obd-ts.served';
/** Cost limit of an image that cannot be lazy, plus an allowance for a busy machine. */
const EXTRA_MS_MAX = 2_000 + 1_500;
const LAYERS = 3;

let folder: string;
let containerd: PrivateContainerd;
let cri: CriClient;
let snapshots: SnapshotsClient;
const undo: (() => unknown)[] = [];
const known = new Set<string>();

before(async () => {
  if (skip !== undefined) return;
  folder = mkdtempSync('/var/tmp/obdf.');
  undo.push(() => rmSync(folder, { recursive: true }));
  containerd = await PrivateContainerd.start({
    folder: folderOfCri,
    // CRI's default: it sends no references.
    configure: (to) => criConfig(to, 'none').replace('annotations = false', 'annotations = true'),
  });
  undo.push(() => containerd.stop());
  const hosts = join(containerd.directory, 'certs.d');
  await containerd.startObd(`[registry]\nhosts_dir = ${JSON.stringify(hosts)}\n`);
  cri = new CriClient(containerd.socket, `/${containerd.namespace}`);
  snapshots = new SnapshotsClient(containerd.snapshotterSocket);
  undo.push(() => {
    cri.close();
    snapshots.close();
  });
});
after(async () => {
  for (const step of undo.reverse()) await step();
});

/** Pushes an image of LAYERS layers, none shared with other images, converted unless `plain`. */
async function push(name: string, { plain = false } = {}): Promise<string> {
  const layout = new LayoutBuilder(join(folder, `${name}-layout`));
  const layers = Array.from({ length: LAYERS }, (_, i) =>
    layerOf(join(folder, `${name}-${i}`), (root) => {
      if (i === 0) addProgram(root, '/bin/cat');
      writeFileSync(join(root, 'hello'), `${name}\n`);
      writeFileSync(join(root, `ballast${i}`), randomBytes(1 << 20));
    }),
  );
  layout.tag('image', layout.addImage(layers, goArchitecture()));
  if (plain) return await containerd.push(`${layout.directory}:image`, `${name}:1`);
  const reference = `${containerd.registry}/${name}:1`;
  const { status, stderr } = await runObdconv([
    `oci:${layout.directory}:image`,
    `docker://${reference}`,
  ]);
  assert.equal(status, 0, stderr);
  return reference;
}

async function msOf(body: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await body();
  return performance.now() - started;
}

/** How the layers since the last call are served. */
async function newlyServed(): Promise<string> {
  const all = (await snapshots.list()).filter(({ kind }) => kind === 'COMMITTED');
  const fresh = all.filter(({ name }) => !known.has(name));
  for (const { name } of fresh) known.add(name);
  assert.equal(fresh.length, LAYERS);
  return [...new Set(fresh.map(({ labels }) => labels[SERVED]))].join(' ');
}

trustCase(
  'first-contact',
  'ports that CRI does not send',
  'unknown: at most 2 s more than overlayfs; then found by image names, and by hosts.toml',
  async () => {
    const [plain, unknown, named, listed] = [
      await push('plain', { plain: true }),
      await push('unknown'),
      await push('named'),
      await push('listed'),
    ];
    const overlayMs = await msOf(() => containerd.ctr('images', 'pull', plain));
    const unknownMs = await msOf(() => cri.pull(unknown));
    assert.equal(await newlyServed(), 'local');
    assert.ok(unknownMs < overlayMs + EXTRA_MS_MAX, `${unknownMs} ms, overlayfs ${overlayMs} ms`);

    await cri.pull(named);
    assert.equal(await newlyServed(), 'lazy');

    for (const image of [unknown, named]) await cri.removeImage(image);
    mkdirSync(join(containerd.directory, 'certs.d', containerd.registry), { recursive: true });
    await cri.pull(listed);
    assert.equal(await newlyServed(), 'lazy');
    await cri.removeImage(listed);
    const seconds = (ms: number) => (ms / 1000).toFixed(1);
    return `overlayfs ${seconds(overlayMs)} s, unknown ${seconds(unknownMs)} s, then lazy twice`;
  },
  { skip },
);

trustCase(
  'first-contact',
  'a registry on loopback that speaks TLS',
  'pulled lazily, and a container reads it',
  async () => {
    const reference = await push('secure');
    const front = await TlsFront.start(containerd.registry, folder);
    undo.splice(1, 0, () => front.close());
    const secure = reference.replace(containerd.registry, front.host);
    const socket = ['--address', containerd.socket, '--namespace', containerd.namespace];
    const { status, stderr } = await obdctl('rpull', ...socket, secure);
    assert.equal(status, 0, stderr);
    assert.equal(await newlyServed(), 'lazy');
    const run = ['run', '--rm', '--snapshotter', 'obd-ts', secure, 'c', '/bin/cat', '/hello'];
    const said = (await containerd.ctr(...run)).trim();
    assert.equal(said, 'secure');
    await containerd.ctr('images', 'remove', '--sync', secure);
    return `lazy, "${said}"`;
  },
  { skip, slow: true },
);

trustCase(
  'first-contact',
  'a registry that accepts connections and is silent',
  `${LAYERS} layers wait once for it`,
  async () => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const digests = Array.from({ length: LAYERS }, () => sha256Of(randomBytes(8)));
    for (const digest of digests) {
      const [config, layer] = [
        { mediaType: OCI_CONFIG, digest, size: 1 },
        { mediaType: OCI_LAYER_TAR, digest, size: 4096 },
      ];
      const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] };
      await storeManifest(containerd.socket, 'silent', manifest, ['127.0.0.1', 'app']);
    }
    let arrived = 0;
    server.on('connection', () => arrived++);
    const spentMs = await msOf(async () => {
      for (const [i, digest] of digests.entries()) {
        await snapshots.prepare(`silent/${i}/extract-${i} ${digest}`, '', {
          'containerd.io/snapshot.ref': digest,
          'containerd.io/snapshot/cri.image-ref': `${host}/app:1`,
          'containerd.io/snapshot/overlaybd/blob-digest': digest,
          'containerd.io/snapshot/overlaybd/blob-size': '4096',
        });
        await snapshots.remove(`silent/${i}/extract-${i} ${digest}`);
      }
    });
    server.close();
    assert.ok(arrived > 0, 'the registry was asked');
    assert.ok(spentMs < EXTRA_MS_MAX, `${spentMs} ms`);
    return `${(spentMs / 1000).toFixed(1)} s in all`;
  },
  { skip },
);

/**
 * Goal: a container gets the content of its image's chain ID, despite false images, registries and records of an earlier
 * version; and neither data nor logins go to another host.
 * Method: forged images pulled through every available client, in one namespace, and their victim in another, with real
 * daemons, containerd and registry; a registry that serves other bytes under the right digests; a database of the earlier
 * version; registries that redirect uploads and logins.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import Database from 'better-sqlite3';
import { chainIdOn } from '../../src/oci/chain-id.js';
import { AstrayRegistry } from '../support/astray-registry.js';
import { BlockdProcess } from '../support/blockd-process.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { FORGERIES, ForgedImages, GOOD } from '../support/forged-image.js';
import { LoopbackRegistry } from '../support/loopback-registry.js';
import { taggedManifest } from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { mountsIn, SnapshotsClient, SnapshotterProcess } from '../support/snapshotter-process.js';
import { storeManifest } from '../support/stored-manifest.js';
import { trustCase, trustSeed } from '../support/trust-case.js';

const skip = unfit === false ? undefined : unfit;

/** Namespaces of one case. */
const SHARERS = ['first', 'without', 'wrong', 'second'];

let images: ForgedImages;
let containerd: PrivateContainerd;
const undo: (() => unknown)[] = [];
let count = 0;

before(async () => {
  if (skip !== undefined) return;
  images = await ForgedImages.make();
  undo.push(() => images.remove());
  containerd = await PrivateContainerd.start();
  undo.push(() => containerd.stop());
  await containerd.startObd();
  await pushAll(containerd);
  for (const namespace of ['testsuite', ...SHARERS]) {
    for (const tag of ['victim', 'other']) {
      const source = ['127.0.0.1', tag] as const;
      await storeManifest(containerd.socket, namespace, images.manifest(tag), source);
    }
  }
});
after(async () => {
  for (const step of undo.reverse()) await step();
});

/** Pushes every image to the registry of this containerd. */
async function pushAll(to: PrivateContainerd): Promise<void> {
  for (const tag of ['victim', 'other', 'untreed', ...FORGERIES]) {
    await to.push(`${images.directory}:${tag}`, `${tag}:1`, '--preserve-digests');
  }
}

const ctr = (namespace: string, ...args: readonly string[]) =>
  containerd.ctr('--namespace', namespace, ...args);

async function rpull(namespace: string, image: string, from = containerd.registry) {
  const socket = ['--address', containerd.socket, '--namespace', namespace];
  return await obdctl('rpull', '--plain-http', ...socket, `${from}/${image}:1`);
}

async function run(namespace: string, image: string, from = containerd.registry): Promise<string> {
  const name = `${from}/${image}:1`;
  const options = ['--rm', '--snapshotter', 'obd-ts'];
  return await ctr(namespace, 'run', ...options, name, `c${count++}`, '/bin/cat', '/hello');
}

/** Removes the images of a namespace, and with them their snapshots. */
async function clear(...namespaces: readonly string[]): Promise<void> {
  for (const namespace of namespaces) {
    const names = (await ctr(namespace, 'images', 'list', '--quiet')).split('\n').filter(Boolean);
    for (const name of names) await ctr(namespace, 'images', 'remove', '--sync', name);
  }
}

trustCase(
  'identity',
  'a forged image through rpull, its victim in another namespace',
  'every forgery refused, the victim lazy and right, before and after the forger is removed',
  async () => {
    const forgeries = FORGERIES.filter((_, i) => i === trustSeed % 4 || (trustSeed >> i) % 2 === 0);
    for (const forgery of forgeries) {
      const { status, stderr } = await rpull('w1', forgery);
      assert.notEqual(status, 0, `${forgery} was pulled: ${stderr}`);
      assert.match(stderr, /uncompressed it is sha256/, forgery);
    }
    const pulled = await rpull('w2', 'victim');
    assert.match(pulled.stdout, /2 layers: 2 lazy/, pulled.stderr);
    assert.equal(await run('w2', 'victim'), GOOD);
    await clear('w1');
    assert.equal(await run('w2', 'victim'), GOOD);
    assert.equal((await rpull('w1', 'other')).status, 0);
    assert.equal(await run('w1', 'other'), images.evil);
    await clear('w1', 'w2');
    return `refused: ${forgeries.join(', ')}; the victim lazy, ${GOOD.trim()}`;
  },
  { skip },
);

/** A registry that has an image under its own digests, with the bytes of the blobs of `other`. */
async function posingRegistry(tag: string): Promise<LoopbackRegistry> {
  const evil = await LoopbackRegistry.start();
  const { layers, config } = images.manifest(tag);
  const other = images.manifest('other').layers;
  layers.forEach(({ digest, size }, i) => {
    const bytes = images.blob(other[i]?.digest ?? '');
    assert.equal(bytes.length, size, 'as long as the blob that it poses as');
    evil.blobs.set(digest, bytes);
  });
  evil.addBlob(images.blob(config.digest));
  const manifest = taggedManifest(images.directory, tag);
  const stored = { mediaType: manifest.mediaType, bytes: images.blob(manifest.digest) };
  evil.manifests.set(`${tag}/1`, stored);
  evil.manifests.set(`${tag}/${manifest.digest}`, stored);
  return evil;
}

trustCase(
  'identity',
  'a registry that serves other bytes under the right digests, for an image with hash trees',
  'its layers are not lazy, and containerd refuses them; from the true registry they are lazy and right',
  async () => {
    const evil = await posingRegistry('victim');
    try {
      const refused = await rpull('w1', 'victim', evil.host);
      assert.notEqual(refused.status, 0, refused.stdout);
      assert.match(refused.stderr, /sha256/);
      assert.match((await rpull('w2', 'victim')).stdout, /2 layers: 2 lazy/);
      assert.equal(await run('w2', 'victim'), GOOD);
      await clear('w1', 'w2');
      return 'refused; lazy and good from the true registry';
    } finally {
      await evil.close();
    }
  },
  { skip },
);

trustCase(
  'identity',
  'a registry that serves other bytes under the right digests, for an image without hash trees',
  'its layers serve its own pulls alone; one from the true registry is refused where they are, and else downloads and is right',
  async () => {
    const evil = await posingRegistry('untreed');
    try {
      assert.match((await rpull('w1', 'untreed', evil.host)).stdout, /2 layers: 2 lazy/);
      assert.equal(await run('w1', 'untreed', evil.host), images.evil);
      const refused = await rpull('w1', 'untreed');
      assert.notEqual(refused.status, 0, refused.stdout);
      assert.match(refused.stderr, new RegExp(`from the registry ${evil.host}.*images remove`));
      const pulled = await rpull('w2', 'untreed');
      // The bottom layer is downloaded and verified; the next one is lazy from its own registry.
      assert.match(pulled.stdout, /2 layers: 1 lazy, 1 downloaded/, pulled.stderr);
      assert.equal(await run('w2', 'untreed'), GOOD);
      await clear('w1', 'w2');
      assert.match((await rpull('w2', 'untreed')).stdout, /2 layers: 2 lazy/);
      assert.equal(await run('w2', 'untreed'), GOOD);
      await clear('w2');
      return 'downloaded and good; lazy again when the other was removed';
    } finally {
      await evil.close();
    }
  },
  { skip },
);

/** Runs `body` with a new snapshotter, next to the shared containerd and registry, and the shared or another blockd. */
async function withSnapshotter<T>(
  more: string,
  body: (snapshotter: SnapshotterProcess) => Promise<T>,
  blockdSocket = join(containerd.directory, 'blockd.sock'),
): Promise<T> {
  const snapshotter = await SnapshotterProcess.start({
    blockdSocket,
    containerdSocket: containerd.socket,
    more,
  });
  let done: T;
  try {
    done = await body(snapshotter);
  } catch (error) {
    await snapshotter.end('SIGTERM');
    throw error;
  }
  for (const { name } of (await snapshotter.client.list()).reverse()) {
    await snapshotter.client.remove(name);
  }
  await snapshotter.client.cleanup();
  await snapshotter.stop();
  return done;
}

interface ClaimedLayer {
  readonly ref: string;
  readonly parent: string;
  readonly labels: Record<string, string>;
}

/** The layers of an image, with the labels of a client that sends the reference. */
function claims(tag: string, from = containerd.registry): ClaimedLayer[] {
  let parent = '';
  return images.manifest(tag).layers.map(({ digest, annotations }) => {
    const layer = {
      ref: chainIdOn(parent, digest),
      parent,
      labels: { ...annotations, 'containerd.io/snapshot/image-ref': `${from}/${tag}:1` },
    };
    parent = layer.ref;
    return layer;
  });
}

trustCase(
  'identity',
  'an annotation that names another file system than the layer has',
  'the layer is mounted as what it is, and serves pulls that annotate it rightly',
  async () =>
    await withSnapshotter('', async ({ client }) => {
      for (const fileSystem of ['erofs', 'ext4']) {
        for (const { ref, parent, labels } of claims('victim')) {
          const annotation = { 'containerd.io/snapshot/overlaybd/blob-fs-type': fileSystem };
          assert.equal(await client.prepareLayer(ref, parent, { ...labels, ...annotation }), true);
        }
        const key = `view-${fileSystem}`;
        const [mount] = await client.view(key, claims('victim').at(-1)?.ref ?? '');
        assert.equal(readFileSync(join(mount?.source ?? '', 'hello'), 'utf8'), GOOD);
        await client.remove(key);
      }
      return 'lazy and mounted, first with the wrong annotation and then with the right one';
    }),
  { skip },
);

trustCase(
  'identity',
  'an annotation that names another hash tree than the layer has',
  'containerd downloads the layer; pulls that annotate it rightly stay lazy, and keep their tree',
  async () =>
    await withSnapshotter('', async (snapshotter) => {
      const { client } = snapshotter;
      const key = 'containerd.io/snapshot/obd-ts.hash-tree';
      const [bottom, top] = claims('victim');
      const [, other] = claims('other');
      assert.ok(bottom !== undefined && top !== undefined && other !== undefined);
      const [root, offset] = (top.labels[key] ?? '').split('@');
      const [otherRoot] = (other.labels[key] ?? '').split('@');
      const forged = [`${otherRoot}@${offset}`, `${root}@512`, `${root}@999999999999`, 'sha256:@1'];
      assert.equal(await client.prepareLayer(bottom.ref, bottom.parent, bottom.labels), true);
      const { ref, parent, labels } = top;
      const isLazy = async (tree: string) =>
        await client.prepareLayer(ref, parent, { ...labels, [key]: tree });
      for (const tree of forged) assert.equal(await isLazy(tree), false, tree);
      assert.equal(await isLazy(labels[key] ?? ''), true);
      for (const tree of forged.slice(0, 1)) assert.equal(await isLazy(tree), false, tree);
      assert.match(snapshotter.log(), new RegExp(`with the hash tree ${root}, which it keeps`));
      assert.equal(await isLazy(labels[key] ?? ''), true);
      const [mount] = await client.view('view', ref);
      assert.equal(readFileSync(join(mount?.source ?? '', 'hello'), 'utf8'), GOOD);
      await client.remove('view');
      return 'not lazy with forged trees, before and after the right one';
    }),
  { skip },
);

trustCase(
  'identity',
  'labels that clients change prove nothing',
  'a layer on a parent that was only labelled with a chain ID is not lazy; on the true one it is',
  async () =>
    await withSnapshotter('', async ({ client }) => {
      const [bottom, top] = claims('victim');
      const [, evil] = claims('other');
      assert.ok(bottom !== undefined && top !== undefined && evil !== undefined);
      for (const { ref, parent, labels } of [bottom, evil]) {
        assert.equal(await client.prepareLayer(ref, parent, labels), true);
      }
      const ref = { 'containerd.io/snapshot.ref': top.ref };
      await client.update({ name: evil.ref, labels: ref }, 'labels');
      // list() hides it too, so that containerd cannot take it for the layer that the label names.
      const shown = (await client.list()).find(({ name }) => name === evil.ref);
      assert.equal(shown?.labels['containerd.io/snapshot.ref'], undefined);
      assert.equal(await client.prepareLayer(top.ref, top.parent, top.labels), false);
      const above = chainIdOn(top.ref, images.manifest('victim').layers[0]?.digest ?? '');
      assert.equal(await client.prepareLayer(above, evil.ref, bottom.labels), false);
      assert.equal(await client.prepareLayer(above, bottom.ref, bottom.labels), false);
      return 'the labelled layer is handed to no pull, and nothing on it is lazy';
    }),
  { skip },
);

trustCase(
  'identity',
  'records of the version that did not ask for proof',
  'refused by Prepare and View, named in the log and by doctor; a container that was there goes on',
  async () =>
    await withSnapshotter('', async (snapshotter) => {
      const { client, root, directory } = snapshotter;
      const [bottom, top] = claims('victim');
      assert.ok(bottom !== undefined && top !== undefined);
      for (const { ref, parent, labels } of [bottom, top]) {
        assert.equal(await client.prepareLayer(ref, parent, labels), true);
      }
      await client.prepare('running', top.ref);
      const [mountPoint = ''] = mountsIn(directory);
      await snapshotter.end('SIGTERM');
      downgrade(join(root, 'snapshots.db'), top.ref, images.manifest('other').layers[1]?.digest);
      await snapshotter.restart();
      assert.equal(readFileSync(join(mountPoint, 'hello'), 'utf8'), GOOD);
      const remedy = /without proof .* remove all images with it and pull them again/;
      await assert.rejects(client.prepare('new', top.ref), remedy);
      await assert.rejects(client.view('new', top.ref), remedy);
      assert.equal((await client.mounts('running')).length, 1);
      assert.match(snapshotter.log(), /existing container served from an unproved layer/);
      await client.prepare('on the proved one', bottom.ref);
      assert.ok(snapshotter.log().includes('refused to new containers'));
      const { stdout } = await obdctl(
        'doctor',
        '--snapshotter',
        join(directory, 'snapshotter.sock'),
      );
      const [line = ''] = stdout.split('\n').filter((each) => each.startsWith('layers'));
      assert.ok(
        line.includes(top.ref) && line.includes(`${containerd.registry}/v2/victim`),
        stdout,
      );
      return line.slice(0, 120);
    }),
  { skip },
);

/** Changes the database to the earlier version's record of a forged layer. */
function downgrade(path: string, name: string, digest: string | undefined): void {
  const database = new Database(path);
  database
    .prepare(`UPDATE snapshot SET layer = json_set(layer, '$.lower.digest', ?) WHERE name = ?`)
    .run(digest, name);
  // That version recorded layers in another form than the image config's.
  database.exec(`
    UPDATE snapshot SET layer = json_object('type', 'remote', 'digest', layer ->> '$.lower.digest',
      'sizeBytes', layer ->> '$.lower.size', 'repoBlobUrl', layer ->> '$.lower.repoBlobUrl',
      'fileSystem', layer ->> '$.fileSystem') WHERE layer ->> '$.type' = 'blocks';
    ALTER TABLE snapshot DROP COLUMN chain_id;
    ALTER TABLE snapshot DROP COLUMN namespaces;
    PRAGMA user_version = 1;
  `);
  database.close();
}

trustCase(
  'identity',
  'a rebase capability declared by hand',
  'Prepare fails and names the line to remove, with and without the labels of containerd 2.4',
  async () =>
    await withSnapshotter('', async ({ client }) => {
      const [bottom, top] = claims('victim');
      assert.ok(bottom !== undefined && top !== undefined);
      const { digest } = images.manifest('victim').layers[1] ?? { digest: '' };
      const told = {
        'containerd.io/snapshot/diff-id': digest,
        'containerd.io/snapshot/parent-chain-id': bottom.ref,
      };
      const plain = chainIdOn(bottom.ref, bottom.ref);
      const refusal = /remove "rebase" from "capabilities".*proxy_plugins/;
      for (const [ref, labels] of [
        [top.ref, { ...top.labels, ...told }],
        [plain, { ...told, 'containerd.io/snapshot/diff-id': bottom.ref }],
      ] as const) {
        await assert.rejects(client.prepareLayer(ref, '', labels), refusal);
      }
      assert.equal(await client.prepareLayer(bottom.ref, '', bottom.labels), true);
      return 'refused for an overlaybd layer and for a plain one';
    }),
  { skip },
);

trustCase(
  'identity',
  'sharing between namespaces turned off',
  'another namespace is lazy only with a login of its own that the registry takes, and none if obd-blockd has no login',
  async () => {
    const registry = await LoopbackRegistry.start();
    const folder = mkdtempSync('/var/tmp/obdl.');
    let blockd: BlockdProcess | undefined;
    try {
      registry.login = { kind: 'basic', username: 'ann', password: 'secret' };
      for (const { digest } of images.manifest('victim').layers) {
        registry.addBlob(images.blob(digest));
      }
      const more = ['docker_config', ...['second', 'wrong'].map((name) => `[namespaces.${name}]`)];
      const lines = more.map((key, i) => {
        const path = join(folder, `${i}.json`);
        const auth = Buffer.from(`ann:${i === 2 ? 'guess' : 'secret'}`).toString('base64');
        writeFileSync(path, JSON.stringify({ auths: { [registry.host]: { auth } } }));
        const setting = `docker_config = ${JSON.stringify(path)}\n`;
        return i === 0 ? `share_between_namespaces = false\n${setting}` : `${key}\n${setting}`;
      });
      const [bottom] = claims('victim', registry.host);
      assert.ok(bottom !== undefined);
      const lazyIn = async (socket: string) => {
        const lazy: string[] = [];
        for (const namespace of [...SHARERS, 'first']) {
          const own = new SnapshotsClient(socket, namespace);
          if (await own.prepareLayer(bottom.ref, '', bottom.labels)) lazy.push(namespace);
          own.close();
        }
        return lazy;
      };
      const settings = lines.join('');
      await withSnapshotter(settings, async ({ socket }) => {
        assert.deepEqual(await lazyIn(socket), [], 'obd-blockd could not read it');
      });
      blockd = await BlockdProcess.start(
        `docker_config = ${JSON.stringify(join(folder, '0.json'))}\n`,
      );
      const body = async ({ client, socket }: SnapshotterProcess) => {
        assert.deepEqual(await lazyIn(socket), ['first', 'second', 'first']);
        assert.equal((await client.list(`kind==committed`)).length, 1);
        return 'lazy where it was pulled first and with a good login; downloaded without and with a wrong one';
      };
      return await withSnapshotter(settings, body, blockd.socket);
    } finally {
      await blockd?.stop();
      await registry.close();
      rmSync(folder, { recursive: true });
    }
  },
  { skip },
);

trustCase(
  'identity',
  'a TLS registry that sends uploads, downloads and logins to plain HTTP',
  'refused by name, and nothing arrives there',
  async () => {
    const registry = await AstrayRegistry.start();
    const login = mkdtempSync('/var/tmp/obdl.');
    try {
      const auth = Buffer.from('ann:the-secret').toString('base64');
      const auths = { [registry.host]: { auth }, [registry.trap]: { auth } };
      writeFileSync(join(login, 'config.json'), JSON.stringify({ auths }));
      const environment = { SSL_CERT_FILE: registry.certificate, DOCKER_CONFIG: login };
      const seen: string[] = [];
      for (const lure of ['upload', 'download', 'token'] as const) {
        registry.lure = lure;
        const ends = [`oci:${images.plain}:victim`, `docker://${registry.host}/x:1`];
        const [from = '', to = ''] = lure === 'download' ? ends.reverse() : ends;
        const target = lure === 'download' ? `oci:${login}/out:1` : to;
        const { status, stderr } = await runObdconv([from, target], environment);
        assert.notEqual(status, 0);
        assert.match(stderr, new RegExp(registry.host.replaceAll('.', '\\.')));
        assert.match(stderr, new RegExp(registry.trap.replaceAll('.', '\\.')), lure);
        assert.ok(!stderr.includes('the-secret') && !stderr.includes(auth), stderr);
        seen.push(lure);
      }
      assert.deepEqual(registry.trapped, []);
      assert.ok(registry.seen.some((line) => line.startsWith('POST ')));
      return `${seen.join(', ')} refused; nothing arrived`;
    } finally {
      await registry.stop();
      rmSync(login, { recursive: true });
    }
  },
  { skip },
);

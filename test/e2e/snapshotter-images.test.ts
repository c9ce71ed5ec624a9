/**
 * Goal: under a real containerd and runc, images run from obd-ts: plain ones, overlaybd ones pulled as a whole and
 * overlaybd ones pulled lazily, whose containers share one device and one mount; removing all images leaves nothing.
 * Method: an image of three small layers made of this machine's shell, converted by obdconv; every daemon is a separate
 * process; the registry's access log shows the fetches.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { connectContainerd, underLease } from '../../src/containerd/connect.js';
import { Leases } from '../../src/containerd/leases.js';
import { Snapshots } from '../../src/containerd/snapshots.js';
import { chainIdOn } from '../../src/oci/chain-id.js';
import { BlockdProcess, blockdUnfit } from '../support/blockd-process.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { type LayerSource, LayoutBuilder, readJson } from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { addProgram, goArchitecture, layerOf } from '../support/runnable-image.js';
import { mountsIn, SnapshotsClient, SnapshotterProcess } from '../support/snapshotter-process.js';

const BALLAST_BYTES = 8 << 20;
/** After this time the container waits for its reads. */
const DEAD_MS = 1000;
const KILLS = 4;
const KILL_AFTER_MS_MAX = 200;
const RECONNECT_TURN_MS = 200;
const RECONNECT_TURNS_MAX = 100;

describe('images', { skip: unfit || blockdUnfit, timeout: 300_000 }, () => {
  let folder: string;
  let containerd: PrivateContainerd;
  let blockd: BlockdProcess;
  let snapshotter: SnapshotterProcess;
  /** Undoes the completed steps of before(), last first. */
  const undo: (() => Promise<void>)[] = [];
  let plain: string;
  let converted: string;
  let count = 0;

  before(async () => {
    folder = mkdtempSync('/var/tmp/obdi.');
    undo.push(async () => rmSync(folder, { recursive: true }));
    containerd = await PrivateContainerd.start();
    undo.push(() => containerd.stop());
    const hosts = `[registry.hosts]\n"127.0.0.1" = "${containerd.registry}"\n`;
    blockd = await BlockdProcess.start(hosts);
    // Stop the daemon last: stopping containerd removes the images, and then their devices.
    undo.splice(1, 0, () => blockd.stop());
    snapshotter = await SnapshotterProcess.start({
      socket: containerd.snapshotterSocket,
      blockdSocket: blockd.socket,
      containerdSocket: containerd.socket,
      more: hosts,
    });
    undo.push(() => snapshotter.stop());
    const layout = new LayoutBuilder(join(folder, 'layout'));
    layout.tag('plain', layout.addImage(sampleLayers(folder), goArchitecture()));
    plain = await containerd.push(`${layout.directory}:plain`, 'sample:plain');
    converted = `${containerd.registry}/sample:obd`;
    const conversion = await runObdconv([`oci:${layout.directory}:plain`, `docker://${converted}`]);
    assert.equal(conversion.status, 0, conversion.stderr);
  });
  after(async () => {
    for (const step of undo.reverse()) await step();
  });

  const run = async (image: string, script: string, ...options: readonly string[]) =>
    (
      await containerd.ctr(
        'run',
        '--rm',
        '--snapshotter',
        'obd-ts',
        ...options,
        image,
        `c${count++}`,
        '/bin/sh',
        '-c',
        script,
      )
    ).trim();
  const remove = (image: string) => containerd.ctr('images', 'remove', '--sync', image);
  const devices = async () => (await blockd.client.list()).map(({ path }) => path);
  const rpull = async () => {
    const { status, stderr } = await obdctl(
      'rpull',
      '--plain-http',
      '--address',
      containerd.socket,
      '--namespace',
      containerd.namespace,
      converted,
    );
    assert.equal(status, 0, stderr);
  };
  const nothingLeft = async () => {
    assert.deepEqual(await snapshotter.client.list(), []);
    assert.deepEqual(await devices(), []);
    assert.deepEqual(mountsIn(snapshotter.directory), []);
    assert.deepEqual(readdirSync(join(snapshotter.root, 'snapshots')), []);
  };
  /** containerd's client pauses for some seconds before it reconnects to a plugin. */
  const containerdIsBack = async () => {
    for (let turn = 0; turn < RECONNECT_TURNS_MAX; turn++) {
      const tried = containerd.ctr('snapshots', '--snapshotter', 'obd-ts', 'ls');
      if (await tried.then(Boolean, () => false)) return;
      await setTimeout(RECONNECT_TURN_MS);
    }
    assert.fail('containerd does not find the snapshotter again');
  };
  const served = async () => {
    const labels = (await snapshotter.client.list()).map(
      (info) => info.labels['containerd.io/snapshot/obd-ts.served'],
    );
    return [...new Set(labels)];
  };

  /** ctr of containerd 2 leaves it to the transfer service otherwise, which is not configured for obd-ts here. */
  async function pullByCtr(image: string): Promise<void> {
    const pull = ['images', 'pull', '--plain-http', '--snapshotter', 'obd-ts'];
    const help = await containerd.ctr(...pull, '--help');
    await containerd.ctr(...pull, ...(help.includes('--local') ? ['--local'] : []), image);
  }

  test('a plain image is pulled and run', async () => {
    await pullByCtr(plain);
    assert.equal(await run(plain, 'cat /hello; echo x > /written; cat /written'), 'hello\nx');
    assert.deepEqual(await served(), ['overlayfs']);
    await remove(plain);
    await nothingLeft();
  });

  test('an image pulled lazily runs after fetching little of it; its containers share device and mount', async () => {
    const earlier = (await containerd.requests()).length;
    await rpull();
    assert.deepEqual(await served(), ['lazy']);
    assert.deepEqual(await devices(), []);
    const [one, two] = await Promise.all([
      run(converted, 'cat /hello; echo one > /written; cat /written'),
      run(converted, 'test ! -e /etc/removed && cat /hello; test ! -e /written && echo two'),
    ]);
    assert.deepEqual([one, two], ['hello\none', 'hello\ntwo']);
    const [device, ...others] = await blockd.client.list();
    assert.ok(device !== undefined && others.length === 0);
    assert.equal(mountsIn(snapshotter.directory).length, 1);
    assert.ok(
      device.fetchedBytes < BALLAST_BYTES,
      `${device.fetchedBytes} of ${device.remoteBytes}`,
    );
    const requests = (await containerd.requests()).slice(earlier);
    assert.ok(
      requests.some((line) => /"GET .*\/blobs\/.*" 206 /.test(line)),
      requests.join('\n'),
    );
  });

  test('a container that reads while the daemon is dead continues with the next daemon', async () => {
    const shared = join(folder, 'shared');
    mkdirSync(shared);
    execFileSync('mkfifo', [join(shared, 'ready'), join(shared, 'go')]);
    const before = await devices();
    const running = containerd.ctr(
      'run',
      '--rm',
      '--snapshotter',
      'obd-ts',
      '--mount',
      `type=bind,src=${shared},dst=/shared,options=rbind:rw`,
      converted,
      `c${count++}`,
      '/bin/sh',
      '-c',
      'echo >/shared/ready; read go </shared/go; cat /ballast >/shared/copy',
    );
    await Promise.race([readFile(join(shared, 'ready')), running]);
    await blockd.end('SIGKILL');
    await writeFile(join(shared, 'go'), '\n');
    await setTimeout(DEAD_MS);
    await blockd.restart();
    await running;
    const [copy, ballast] = [join(shared, 'copy'), join(folder, 'two/ballast')];
    assert.ok(readFileSync(copy).equals(readFileSync(ballast)), 'other bytes than the image has');
    assert.deepEqual(await devices(), before);
  });

  test('a container starts after the daemon was killed, and after the snapshotter was', async () => {
    await blockd.end('SIGKILL');
    await snapshotter.end('SIGKILL');
    await blockd.restart();
    await snapshotter.restart();
    await containerdIsBack();
    // The container also writes to a file outside: once, on a busy machine, ctr printed nothing.
    const kept = join(folder, 'kept');
    mkdirSync(kept);
    const mount = `type=bind,src=${kept},dst=/mnt,options=rbind:rw`;
    const script = 'cat /hello >/mnt/read 2>/mnt/said; echo $? >/mnt/status; cat /hello';
    const printed = await run(converted, script, '--mount', mount);
    const inside = (name: string) => readFileSync(join(kept, name), 'utf8').trim();
    const container = [inside('read'), inside('said'), inside('status')];
    assert.deepEqual(container, ['hello', '', '0'], 'the file system of the container');
    assert.equal(printed, 'hello', 'ctr lost the output of a container that read its file');
    assert.equal((await devices()).length, 1);
    assert.equal(mountsIn(snapshotter.directory).length, 1);
  });

  test('while the daemon is down a container is refused with the reason, and images can be removed', async () => {
    await blockd.end('SIGTERM');
    await assert.rejects(
      run(converted, 'true'),
      /Cannot serve the image with top layer .*127\.0\.0\.1:\d+\/v2\/sample\): .*obd-blockd/,
    );
    await remove(converted);
    assert.deepEqual(await snapshotter.client.list(), []);
    await blockd.restart();
    await snapshotter.client.cleanup();
    await nothingLeft();
  });

  test('an overlaybd image pulled as a whole is served locally', async () => {
    const earlier = blockd.log().length;
    await pullByCtr(converted);
    assert.deepEqual(await served(), ['local']);
    const attached = blockd
      .log()
      .slice(earlier)
      .filter(({ msg }) => msg.includes('attach'));
    assert.deepEqual([await devices(), attached], [[], []]);
    assert.equal(await run(converted, 'cat /hello'), 'hello');
    assert.equal((await blockd.client.list())[0]?.remoteBytes, 0);
    await remove(converted);
    await nothingLeft();
  });

  test('pulled as nerdctl does, without the image reference, an image is served lazily and run', async () => {
    // nerdctl fetches the documents, and prepares each layer with its annotations and chain ID only.
    await containerd.ctr('content', 'fetch', '--plain-http', converted);
    const connection = connectContainerd(containerd.socket, containerd.namespace);
    const leases = new Leases(connection);
    // Else garbage collection may remove a layer before the next one is put on it.
    const lease = await leases.create(60_000);
    try {
      const snapshots = new Snapshots(underLease(connection, lease), 'obd-ts');
      const { layers } = await manifestOf(converted);
      let parent = '';
      for (const { digest, annotations } of layers) {
        const ref = chainIdOn(parent, digest);
        const labels = { ...annotations, 'containerd.io/snapshot.ref': ref };
        const key = `extract-${process.hrtime.bigint()} ${ref}`;
        await assert.rejects(snapshots.prepare(key, parent, labels), {
          code: 'ERR_ALREADY_EXISTS',
        });
        assert.equal((await snapshots.stat(ref)).kind, 'COMMITTED');
        parent = ref;
      }
      assert.deepEqual(await served(), ['lazy']);
      assert.equal(await run(converted, 'cat /hello'), 'hello');
      const [device] = await blockd.client.list();
      assert.ok((device?.fetchedBytes ?? Infinity) < BALLAST_BYTES);
    } finally {
      await leases.remove(lease, false);
      connection.close();
    }
    await remove(converted);
    for (const { name } of (await snapshotter.client.list()).reverse()) {
      await snapshotter.client.remove(name);
    }
    await nothingLeft();
  });

  test('without the image reference, the registry is found in the content store', async () => {
    await containerd.ctr('content', 'fetch', '--plain-http', converted);
    // As after a pull of the same image from a repository that lacks it now.
    const { target } = await imageOf(converted);
    const source = 'containerd.io/distribution.source.127.0.0.1=gone/elsewhere,sample';
    await containerd.ctr('content', 'label', target, source);
    const client = new SnapshotsClient(containerd.snapshotterSocket, containerd.namespace);
    const { layers } = await manifestOf(converted);
    let parent = '';
    for (const { digest, annotations } of layers) {
      const ref = chainIdOn(parent, digest);
      assert.equal(await client.prepareLayer(ref, parent, annotations), true);
      parent = ref;
    }
    const [mount] = await client.view('view', parent);
    const { labels } = await client.stat('view');
    assert.equal(labels['containerd.io/snapshot/obd-ts.served'], 'lazy');
    assert.equal(
      execFileSync('cat', [join(mount?.source ?? '', 'hello')], { encoding: 'utf8' }),
      'hello\n',
    );
    await client.remove('view');
    await killedWhileMounting(client, parent);
    for (const { name } of (await client.list()).reverse()) await client.remove(name);
    client.close();
    await remove(converted);
    await nothingLeft();
  });

  /** Each turn requests the unmounted image, and kills the snapshotter on the way. */
  async function killedWhileMounting(client: SnapshotsClient, image: string): Promise<void> {
    for (let kill = 0; kill < KILLS; kill++) {
      for (const target of mountsIn(snapshotter.directory)) execFileSync('umount', [target]);
      for (const { id } of await blockd.client.list()) await blockd.client.detach(id);
      const asked = client.view(`killed ${kill}`, image).catch(() => {});
      await setTimeout(Math.random() * KILL_AFTER_MS_MAX);
      await snapshotter.end('SIGKILL');
      await asked;
      await snapshotter.restart();
      await client.view(`after ${kill}`, image);
      assert.equal(mountsIn(snapshotter.directory).length, 1);
      assert.equal((await devices()).length, 1);
    }
  }

  async function imageOf(image: string): Promise<{ target: string }> {
    const [line = ''] = (await containerd.ctr('images', 'ls', `name==${image}`))
      .split('\n')
      .slice(1);
    return { target: /sha256:[0-9a-f]{64}/.exec(line)?.[0] ?? '' };
  }

  async function manifestOf(
    image: string,
  ): Promise<{ layers: { digest: string; annotations: Record<string, string> }[] }> {
    const target = join(folder, 'copy');
    rmSync(target, { recursive: true, force: true });
    execFileSync('skopeo', [
      '--insecure-policy',
      'copy',
      '--quiet',
      '--src-tls-verify=false',
      `docker://${image}`,
      `dir:${target}`,
    ]);
    return readJson(join(target, 'manifest.json'));
  }
});

/** A shell with its libraries, a large file, and a change to both. */
function sampleLayers(folder: string): LayerSource[] {
  return [
    layerOf(join(folder, 'one'), (root) => {
      for (const program of ['/bin/sh', '/bin/cat']) addProgram(root, program);
      mkdirSync(join(root, 'etc'));
      writeFileSync(join(root, 'etc/removed'), 'old');
    }),
    layerOf(join(folder, 'two'), (root) => {
      writeFileSync(join(root, 'hello'), 'not this\n');
      writeFileSync(join(root, 'ballast'), randomBytes(BALLAST_BYTES));
    }),
    layerOf(join(folder, 'three'), (root) => {
      mkdirSync(join(root, 'etc'));
      writeFileSync(join(root, 'etc/.wh.removed'), '');
      writeFileSync(join(root, 'hello'), 'hello\n');
    }),
  ];
}

/**
 * Goal: `obdctl rpull` leaves in containerd the same state as containerd's own pull, fetches no more than it must,
 * reports errors with a remedy, and leaves nothing when it fails or is interrupted.
 * Method: a real containerd and a real registry; the result is compared with that of `ctr images pull` of the same
 * image in another namespace; the registry's access log shows the fetches. A proxy that stalls holds a download up to
 * be interrupted.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { TREE_HEADER_BYTES } from '../../src/zfile/hash-tree-layout.js';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import { type LayerSource, LayoutBuilder, sha256 } from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl, startObdctl } from '../support/run-obdctl.js';
import { tarOf } from '../support/tar-builder.js';

const GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const LAYERS = 2;
const LAYER_BYTES = 3 << 20;

describe('obdctl rpull', { skip: unfit, timeout: 120_000 }, () => {
  let containerd: PrivateContainerd;
  let folder: string;
  let layout: LayoutBuilder;
  /** Two layers for this machine, in an index. */
  let image: string;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'rpull-'));
    layout = new LayoutBuilder(join(folder, 'layout'));
    containerd = await PrivateContainerd.start();
    const manifest = layout.addImage(sampleLayers(), goArchitecture());
    const foreign = layout.addImage([gzipLayer(tarOf([{ name: 'f' }]))], 's390x');
    const index = layout.addJson('application/vnd.oci.image.index.v1+json', {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        { ...foreign, platform: { os: 'linux', architecture: 's390x' } },
        { ...manifest, platform: { os: 'linux', architecture: goArchitecture() } },
      ],
    });
    layout.tag('index', index);
    layout.tag('single', manifest);
    image = await containerd.push(`${layout.directory}:single`, 'sample:single');
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await containerd.stop();
  });

  const rpull = (reference: string, namespace: string, ...more: string[]) =>
    obdctl(...arguments_(reference, namespace, ...more));
  const arguments_ = (reference: string, namespace: string, ...more: string[]) => [
    'rpull',
    '--plain-http',
    '--address',
    containerd.socket,
    '--namespace',
    namespace,
    ...(more.includes('--snapshotter') ? [] : ['--snapshotter', 'overlayfs']),
    ...more,
    reference,
  ];
  const ctr = (namespace: string, ...args: string[]) =>
    containerd.ctr('--namespace', namespace, ...args);

  /** All objects that containerd holds in a namespace. */
  async function holdings(namespace: string) {
    return {
      content: lines(await ctr(namespace, 'content', 'ls'))
        .map(withoutTimes)
        .sort(),
      snapshots: lines(
        await ctr(namespace, 'snapshots', '--snapshotter', 'overlayfs', 'ls'),
      ).sort(),
      images: lines(await ctr(namespace, 'images', 'ls')).sort(),
      leases: lines(await ctr(namespace, 'leases', 'ls')),
      ingests: lines(await ctr(namespace, 'content', 'active')),
    };
  }
  const nothing = { content: [], snapshots: [], images: [], leases: [], ingests: [] };

  test('pulls a plain image with the same result as ctr', async () => {
    const run = await rpull(image, 'ours');
    assert.equal(run.status, 0, run.stderr);
    assert.match(
      run.stdout,
      /^Pulled 127\.0\.0\.1:\d+\/sample:single \(sha256:[0-9a-f]{64}\): 2 layers: 2 downloaded; fetched 3\.0 MiB of 3\.0 MiB in /,
    );
    assert.match(run.stderr, /Warning: the snapshotter "overlayfs" does not serve layer 1 lazily/);
    assert.match(run.stderr, /Layer 2\/2 sha256:[0-9a-f]{12}: downloaded and unpacked, /);
    await ctr('theirs', 'images', 'pull', '--plain-http', '--snapshotter', 'overlayfs', image);
    assert.deepEqual(await holdings('ours'), await holdings('theirs'));
  });

  test('unpacks the layers over each other', async () => {
    const target = mkdtempSync(join(folder, 'mounted-'));
    await ctr('ours', 'images', 'mount', '--snapshotter', 'overlayfs', image, target);
    try {
      assert.equal(readFileSync(join(target, 'etc/b'), 'utf8'), 'two');
      assert.throws(() => readFileSync(join(target, 'etc/a')), { code: 'ENOENT' });
      assert.equal(readFileSync(join(target, 'big')).length, LAYER_BYTES);
    } finally {
      await ctr('ours', 'images', 'unmount', '--rm', '--snapshotter', 'overlayfs', target);
    }
  });

  test('fetches no layer twice', async () => {
    const earlier = (await containerd.requests()).length;
    const run = await rpull(image, 'ours');
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stdout, /: 2 layers: 2 already here; fetched \d+ B of 3\.0 MiB in /);
    const requests = (await containerd.requests()).slice(earlier);
    assert.ok(requests.length <= 4, requests.join('\n'));
  });

  test('pulls only the image for the platform from an index', async () => {
    const index = await containerd.push(`${layout.directory}:index`, 'sample:index', '--all');
    const host = await rpull(index, 'host');
    assert.equal(host.status, 0, host.stderr);
    const pull = ['images', 'pull', '--plain-http', '--snapshotter', 'overlayfs'];
    // By default, ctr of containerd 2 fetches the manifests of all platforms.
    const help = await ctr('host-ctr', ...pull, '--help');
    if (help.includes('--skip-metadata')) pull.push('--skip-metadata');
    await ctr('host-ctr', ...pull, index);
    assert.deepEqual(await holdings('host'), await holdings('host-ctr'));
    const foreign = await rpull(index, 'foreign', '--platform', 'linux/s390x');
    assert.match(foreign.stdout, /: 1 layer: 1 downloaded; /, foreign.stderr);
    await fails(
      rpull(index, 'none', '--platform', 'linux/riscv64'),
      1,
      /Cannot find linux\/riscv64 in .*: it has linux\/s390x, linux\/\w+; choose one with --platform/,
    );
    await fails(
      rpull(image, 'none', '--platform', 'linux/riscv64'),
      1,
      /it is for linux\/\w+; ask for that with --platform/,
    );
    assert.deepEqual(await holdings('none'), nothing);
  });

  test('moves an existing name to the newer image', async () => {
    const reference = await containerd.push(`${layout.directory}:single`, 'moving:1');
    assert.equal((await rpull(reference, 'moving')).status, 0);
    const before = await holdings('moving');
    layout.tag('newer', layout.addImage([gzipLayer(tarOf([{ name: 'new' }]))], goArchitecture()));
    await containerd.push(`${layout.directory}:newer`, 'moving:1');
    assert.equal((await rpull(reference, 'moving')).status, 0);
    const { images } = await holdings('moving');
    assert.equal(images.length, 1);
    assert.notDeepEqual(images, before.images);
  });

  test('names the invalid argument or the missing image', async () => {
    const { registry } = containerd;
    await fails(rpull('Not A Reference', 'none'), 2, /is no image reference/);
    await fails(rpull(image, 'none', '--platform', 'x'), 2, /"x" is no platform/);
    await fails(rpull(image, 'a b'), 2, /"a b" is no namespace of containerd/);
    await fails(rpull(`${registry}/sample:missing`, 'none'), 1, /sample:missing.*not found|404/i);
    await fails(rpull(`${registry}/none:1`, 'none'), 1, /none:1/);
    assert.deepEqual(await holdings('none'), nothing);
  });

  test('names a containerd that does not answer, and an unusable snapshotter', async () => {
    const nowhere = join(folder, 'no.sock');
    await fails(
      obdctl('rpull', '--address', nowhere, image),
      1,
      /Cannot reach containerd at ".*no\.sock": .*; check that it runs/,
    );
    await fails(
      rpull(image, 'none', '--snapshotter', 'nosuch'),
      1,
      /"nosuch": containerd has no snapshotter of that name, but .*overlayfs.*; add \[proxy_plugins\.nosuch\]/,
    );
    await fails(
      rpull(image, 'none', '--snapshotter', 'devmapper'),
      1,
      /"devmapper": it did not start: /,
    );
    await fails(
      rpull(image, 'none', '--snapshotter', 'obd-ts'),
      1,
      /"obd-ts": containerd does not reach it; start it/,
    );
    await fails(rpull('127.0.0.1:1/sample:1', 'none'), 1, /127\.0\.0\.1:1: it refuses connections/);
    assert.deepEqual(await holdings('none'), nothing);
  });

  test('refuses a layer that is not what the config says, and leaves nothing', async () => {
    const sound = sampleLayers();
    const wrong = { ...gzipLayer(tarOf([{ name: 'x' }])), diffId: sha256(Buffer.from('else')) };
    layout.tag('wrong', layout.addImage([sound[0]!, wrong], goArchitecture()));
    const reference = await containerd.push(`${layout.directory}:wrong`, 'sample:wrong');
    await fails(
      rpull(reference, 'none'),
      1,
      /uncompressed it is sha256:.*, and the config says sha256:/,
    );
    const cut = gzipSync(tarOf([{ name: 'y', content: randomBytes(5000) }])).subarray(0, 3000);
    const damaged = { mediaType: GZIP_LAYER, blob: cut, diffId: sha256(Buffer.from('y')) };
    layout.tag('cut', layout.addImage([sound[0]!, damaged], goArchitecture()));
    await fails(
      rpull(await containerd.push(`${layout.directory}:cut`, 'sample:cut'), 'none'),
      1,
      /Diff\/Apply\): .*unexpected EOF/,
    );
    assert.deepEqual(await holdings('none'), nothing);
  });

  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    test(`undoes everything on ${signal}`, async () => {
      // Layers that containerd does not have for another namespace: it would share them.
      layout.tag(signal.toLowerCase(), layout.addImage(sampleLayers(), goArchitecture()));
      const name = `sample:${signal.toLowerCase()}`;
      const fresh = await containerd.push(`${layout.directory}:${signal.toLowerCase()}`, name);
      const proxy = await StallingProxy.start(containerd.registry);
      try {
        const reference = fresh.replace(containerd.registry, proxy.address);
        const { child, finished } = startObdctl(...arguments_(reference, 'none'));
        await Promise.race([proxy.stalled, finished.then(({ stderr }) => assert.fail(stderr))]);
        assert.equal((await holdings('none')).leases.length, 1);
        child.kill(signal);
        const run = await finished;
        assert.equal(run.status, status, run.stderr);
        assert.match(
          run.stderr,
          new RegExp(`Interrupted by ${signal}; nothing of the image is kept`),
        );
        assert.deepEqual(await holdings('none'), nothing);
      } finally {
        await proxy.stop();
      }
    });
  }
});

describe('obdctl rpull with obd-ts', { skip: unfit, timeout: 120_000 }, () => {
  let containerd: PrivateContainerd;
  let folder: string;
  /** The same image in two forms: original and converted. */
  let plain: string;
  let lazy: string;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'rpull-'));
    const layout = new LayoutBuilder(join(folder, 'layout'));
    containerd = await PrivateContainerd.start();
    layout.tag('plain', layout.addImage(sampleLayers(), goArchitecture()));
    plain = await containerd.push(`${layout.directory}:plain`, 'sample:plain');
    lazy = plain.replace(/plain$/, 'obd');
    const { registry } = containerd;
    const run = await runObdconv([
      '--plain-http',
      registry,
      `docker://${plain}`,
      `docker://${lazy}`,
    ]);
    assert.equal(run.status, 0, run.stderr);
    await containerd.startObd();
  });
  after(async () => {
    rmSync(folder, { recursive: true });
    await containerd.stop();
  });

  async function rpull(reference: string, namespace = containerd.namespace) {
    const { socket } = containerd;
    const options = ['--plain-http', '--address', socket, '--namespace', namespace];
    return await obdctl('rpull', ...options, reference);
  }

  const snapshotsOf = async (namespace: string, ...args: string[]) =>
    await containerd.ctr('--namespace', namespace, 'snapshots', '--snapshotter', 'obd-ts', ...args);

  /** Name, parent and kind of each snapshot. */
  const listed = async () =>
    lines(await snapshotsOf(containerd.namespace, 'ls')).map((line) => line.split(/ +/));

  /** Runs `body` where the image's root file system is mounted. */
  async function withRoot(
    top: string,
    body: (root: string) => Promise<void>,
    namespace = containerd.namespace,
  ): Promise<void> {
    const root = mkdtempSync(join(folder, 'root-'));
    // Not ctr's `view`: its snapshot has no label that protects it from garbage collection after a pull.
    const command = await snapshotsOf(namespace, 'prepare', '--target', root, 'look', top);
    execFileSync('sh', ['-ec', command]);
    try {
      await body(root);
    } finally {
      execFileSync('umount', [root]);
      await snapshotsOf(namespace, 'rm', 'look');
    }
  }

  /** The snapshot that is no parent. */
  async function topSnapshot(): Promise<string> {
    const all = await listed();
    const top = all.find(([name]) => !all.some((other) => other.length === 3 && other[1] === name));
    return top?.[0] ?? assert.fail('no snapshots');
  }

  test('fetches documents, and blocks only once they are read', async (t) => {
    const start = (await containerd.requests()).length;
    const run = await rpull(lazy);
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stdout, /: 2 layers: 2 lazy; fetched 1\.\d KiB of 3\.1 MiB in /);
    assert.doesNotMatch(run.stderr, /Warning/);
    t.diagnostic(run.stdout.trim());
    const all = (await containerd.requests()).slice(start);
    // obd-blockd looks for load orders beside the pull, once for the image.
    const lookUps = all.filter((line) => /\/referrers\/|\/manifests\/sha256-/.test(line));
    assert.ok(lookUps.length <= 2, lookUps.join('\n'));
    const pulled = all.filter((line) => !lookUps.includes(line));
    // Manifest and config; then obd-blockd fetches the ends of each layer, which opening it needs: all of a small one.
    const ranges = pulled.filter((line) => / 206 /.test(line) && /blobs/.test(line));
    assert.equal(pulled.length, 2 + ranges.length, pulled.join('\n'));
    // If that takes half a second, the snapshotter itself asks for the header of the layer's hash tree.
    const header = ` 206 ${TREE_HEADER_BYTES} `;
    const asked = ranges.filter((line) => !line.includes(header));
    assert.ok(ranges.length - asked.length <= LAYERS, pulled.join('\n'));
    assert.ok(asked.length >= LAYERS && asked.length <= 2 * LAYERS, pulled.join('\n'));

    await withRoot(await topSnapshot(), async (root) => {
      assert.equal(readFileSync(join(root, 'etc/b'), 'utf8'), 'two');
      const blockd = ['--blockd', join(containerd.directory, 'blockd.sock')];
      const [device] = JSON.parse((await obdctl('devices', ...blockd, '--json')).stdout);
      assert.deepEqual([device.remoteLayers, device.provedLayers], [LAYERS, LAYERS]);
      assert.throws(() => readFileSync(join(root, 'etc/a')), { code: 'ENOENT' });
      assert.equal(readFileSync(join(root, 'big')).length, LAYER_BYTES);
      const read = (await containerd.requests()).slice(start + all.length);
      assert.ok(read.length > 0);
      assert.ok(
        read.every((line) => / (?:206|200) /.test(line) && /blobs/.test(line)),
        read.join('\n'),
      );
      const blobs = [...asked, ...read].map((line) => /blobs\/sha256:[0-9a-f]+/.exec(line)?.[0]);
      const requests = [...new Set(blobs)].map(
        (blob) => blobs.filter((each) => each === blob).length,
      );
      assert.equal(Math.min(...requests), 1, 'what the pull fetched is not fetched again');
    });
  });

  test('pulls again without making anything twice', async () => {
    const before = await listed();
    const run = await rpull(lazy);
    assert.match(run.stdout, /: 2 layers: 2 already here; /, run.stderr);
    assert.deepEqual(await listed(), before);
  });

  test('shares layers with another namespace, which keeps them when this one lets go', async () => {
    const other = `${containerd.namespace}-other`;
    const start = (await containerd.requests()).length;
    const run = await rpull(lazy, other);
    assert.match(run.stdout, /: 2 layers: 2 lazy; /, run.stderr);
    assert.equal((await containerd.requests()).length, start + 2);
    const top = await topSnapshot();
    await containerd.ctr('images', 'rm', '--sync', lazy);
    assert.deepEqual(await listed(), []);
    await withRoot(
      top,
      async (root) => assert.equal(readFileSync(join(root, 'etc/b'), 'utf8'), 'two'),
      other,
    );
    await containerd.ctr('--namespace', other, 'images', 'rm', '--sync', lazy);
    const left = readdirSync(join(containerd.directory, 'snapshotter', 'snapshots'));
    assert.deepEqual(left, []);
  });

  test('downloads a plain image, and says so', async () => {
    const run = await rpull(plain);
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stderr, /Warning: the snapshotter "obd-ts" does not serve layer 1 lazily/);
    assert.match(run.stdout, /: 2 layers: 2 downloaded; fetched 3\.0 MiB of 3\.0 MiB in /);
    await withRoot(await topSnapshot(), async (root) => {
      assert.equal(readFileSync(join(root, 'etc/b'), 'utf8'), 'two');
      assert.throws(() => readFileSync(join(root, 'etc/a')), { code: 'ENOENT' });
    });
    await containerd.ctr('images', 'rm', '--sync', plain);
    assert.deepEqual(await listed(), []);
  });
});

async function fails(run: ReturnType<typeof obdctl>, status: number, text: RegExp): Promise<void> {
  const { status: found, stdout, stderr } = await run;
  assert.match(stderr, text);
  assert.equal(found, status, stderr);
  assert.equal(stdout, '');
}

/** Passes everything on to a registry, and blobs of more than 1 MiB up to their first MiB. */
class StallingProxy {
  readonly address: string;
  /** Resolves once it stalls a download. */
  readonly stalled: Promise<void>;
  readonly #server: Server;

  private constructor(server: Server, stalled: Promise<void>) {
    const { port } = server.address() as AddressInfo;
    this.address = `127.0.0.1:${port}`;
    this.stalled = stalled;
    this.#server = server;
  }

  static async start(registry: string): Promise<StallingProxy> {
    let tell = () => {};
    const stalled = new Promise<void>((resolve) => {
      tell = resolve;
    });
    const server = createServer((incoming, outgoing) => {
      const { method, headers, url } = incoming;
      const onward = request(`http://${registry}${url}`, { method, headers }, (response) => {
        outgoing.writeHead(response.statusCode ?? 500, response.headers);
        if (Number(response.headers['content-length']) <= 1 << 20) {
          response.pipe(outgoing);
          return;
        }
        response.once('data', (piece: Buffer) => {
          outgoing.write(piece);
          response.pause();
          tell();
        });
      });
      outgoing.once('close', () => onward.destroy());
      onward.on('error', () => {});
      incoming.pipe(onward);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new StallingProxy(server, stalled);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Two layers: a file, a directory with two files; then one of them gone and the other changed. */
function sampleLayers(): LayerSource[] {
  const first = tarOf([
    { name: 'big', content: randomBytes(LAYER_BYTES) },
    { name: 'etc/', type: '5', mode: 0o755 },
    { name: 'etc/a', content: 'one' },
    { name: 'etc/b', content: 'one' },
  ]);
  const second = tarOf([{ name: 'etc/.wh.a' }, { name: 'etc/b', content: 'two' }]);
  return [gzipLayer(first), gzipLayer(second)];
}

function gzipLayer(tar: Buffer): LayerSource {
  return { mediaType: GZIP_LAYER, blob: gzipSync(tar), diffId: sha256(tar) };
}

function goArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/** A table printed by ctr, without its header. */
function lines(text: string): string[] {
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim());
}

/** `ctr content ls` with its column of ages left out. */
function withoutTimes(line: string): string {
  const [digest, size, ...rest] = line.split(/\t/);
  const labels = rest.at(-1)?.split(',').sort().join(',');
  return [digest, size, labels].map((part) => part?.trim()).join(' ');
}

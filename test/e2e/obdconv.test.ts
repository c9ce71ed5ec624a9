/**
 * Goal: a converted image holds exactly the OCI image's files, after every layer, as the kernel reads them; a second
 * conversion gives the same bytes; a failure leaves no half-written output.
 * Method: an image of awkward layers, converted from one OCI layout to another. Each prefix of its layers is written
 * out as a raw disk, checked by e2fsck, mounted read-only and compared with umoci's unpacked tree.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { compress } from 'zstd-napi';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { exportRaw } from '../../src/layers/raw-export.js';
import { openStack } from '../../src/layers/stacked-files.js';
import { sha256Of } from '../../src/oci/digest.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { NASTY_LAYERS } from '../support/nasty-layers.js';
import {
  blobPath,
  type Descriptor,
  type LayerSource,
  LayoutBuilder,
  readJson,
  sha256,
  taggedManifest,
} from '../support/oci-layout-builder.js';
import { runObdconv, startObdconv } from '../support/run-obdconv.js';
import { tarOf } from '../support/tar-builder.js';
import { compareTrees, countPaths } from '../support/tree-compare.js';

const OVERLAYBD = 'containerd.io/snapshot/overlaybd/';
const METADATA_BYTES = 'containerd.io/snapshot/obd-ts.metadata-bytes';
const HASH_TREE = 'containerd.io/snapshot/obd-ts.hash-tree';
const TAR = 'application/vnd.oci.image.layer.v1.tar';
const root = mkdtempSync(join(tmpdir(), 'obd-obdconv-'));
after(() => rmSync(root, { recursive: true, force: true }));

interface Manifest {
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

const tars = NASTY_LAYERS.map((members) => tarOf(members));
const gzipped = tars.map(
  (tar): LayerSource => ({
    mediaType: `${TAR}+gzip`,
    blob: gzipSync(tar, { level: 1 }),
    diffId: sha256(tar),
  }),
);
const source = new LayoutBuilder(join(root, 'source'));
source.tag('nasty', source.addImage(gzipped));
const work = join(root, 'work');
mkdirSync(work);

async function convert(from: string, to: string, ...flags: string[]): Promise<string> {
  const args = ['--work-dir', work, ...flags, `oci:${source.directory}:${from}`, `oci:${to}:out`];
  const { status, stderr } = await runObdconv(args);
  assert.equal(status, 0, stderr);
  assert.deepEqual(readdirSync(work), [], 'the work directory is empty again');
  return stderr;
}

function manifestOf(layout: string, tag: string): Manifest {
  return readJson<Manifest>(blobPath(layout, taggedManifest(layout, tag).digest));
}

const why =
  process.getuid?.() !== 0
    ? 'mounting and unpacking with owners needs root'
    : ['umoci', 'mount', 'python3'].find((program) => spawnSync('which', [program]).status !== 0);
const skip = why === undefined ? false : `cannot run here: ${why}`;

describe('a converted image', () => {
  const target = join(root, 'target');
  let manifest: Manifest;

  before(async () => {
    const lines = await convert('nasty', target);
    assert.match(lines, /Layer 3\/3 sha256:/);
    manifest = manifestOf(target, 'out');
  });

  test('says what it is in manifest and config', () => {
    assert.equal(manifest.mediaType, 'application/vnd.oci.image.manifest.v1+json');
    assert.equal(manifest.layers.length, 3);
    for (const { mediaType, digest, size, annotations } of manifest.layers) {
      assert.equal(mediaType, TAR);
      const metadataBytes = annotations?.[METADATA_BYTES] ?? '';
      const hashTree = annotations?.[HASH_TREE] ?? '';
      assert.deepEqual(annotations, {
        [`${OVERLAYBD}version`]: '0.1.0',
        [`${OVERLAYBD}blob-digest`]: digest,
        [`${OVERLAYBD}blob-size`]: String(size),
        [`${OVERLAYBD}blob-fs-type`]: 'ext4',
        [METADATA_BYTES]: metadataBytes,
        [HASH_TREE]: hashTree,
      });
      const [root, offset] = hashTree.split('@');
      const blob = readFileSync(blobPath(target, digest));
      assert.equal(sha256Of(blob.subarray(Number(offset), Number(offset) + 512)), root);
      // Behind the end of the tar.
      assert.ok(blob.subarray(Number(offset) - 1024, Number(offset)).every((byte) => byte === 0));
      assert.match(metadataBytes, /^[1-9][0-9]*$/);
      assert.ok(Number(metadataBytes) < size);
    }
    const before = readJson<Record<string, unknown>>(
      blobPath(source.directory, manifestOf(source.directory, 'nasty').config.digest),
    );
    const config = readJson<Record<string, unknown>>(blobPath(target, manifest.config.digest));
    const diffIds = manifest.layers.map(({ digest }) => digest);
    assert.deepEqual(config, { ...before, rootfs: { type: 'layers', diff_ids: diffIds } });
  });

  for (const layers of [1, 2, 3]) {
    test(`equals what umoci unpacks, after ${layers} of 3 layers`, { skip }, async () => {
      const disk = join(root, 'disk.raw');
      const blobs = manifest.layers.slice(0, layers).map(({ digest }) => blobPath(target, digest));
      const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(1 << 23) };
      const stack = await openStack(blobs, { targets: [], checksParents: true }, dependencies);
      await exportRaw(stack, disk, new AbortController().signal, () => {});
      stack.close();
      const fsck = spawnSync('/sbin/e2fsck', ['-fn', disk], { encoding: 'utf8' });
      assert.equal(fsck.status, 0, fsck.stdout);

      source.tag(`prefix-${layers}`, source.addImage(gzipped.slice(0, layers)));
      const bundle = join(root, `bundle-${layers}`);
      const image = `${source.directory}:prefix-${layers}`;
      execFileSync('umoci', ['unpack', '--image', image, bundle], { stdio: 'pipe' });
      const mountPoint = join(root, 'mnt');
      mkdirSync(mountPoint, { recursive: true });
      execFileSync('mount', ['-o', 'loop,ro', disk, mountPoint]);
      try {
        const ours = { ignore: ['lost+found'] };
        assert.ok(countPaths(mountPoint) > 200);
        assert.deepEqual(compareTrees(join(bundle, 'rootfs'), mountPoint, ours), []);
      } finally {
        execFileSync('umount', [mountPoint]);
      }
      rmSync(bundle, { recursive: true });
      rmSync(disk);
    });
  }

  test('is the same every time, for any compression of the source', async () => {
    const expected = taggedManifest(target, 'out').digest;
    await convert('nasty', join(root, 'again'));
    assert.equal(taggedManifest(join(root, 'again'), 'out').digest, expected);
    const other = tars.map((tar, i) => ({
      mediaType: `${TAR}+zstd`,
      blob: i === 0 ? tar : compress(tar),
      diffId: sha256(tar),
    }));
    source.tag('zstd', source.addImage(other));
    await convert('zstd', join(root, 'zstd'));
    const layers = manifestOf(join(root, 'zstd'), 'out').layers.map(({ digest }) => digest);
    assert.deepEqual(
      layers,
      manifest.layers.map(({ digest }) => digest),
    );
  });

  test('is refused as a source', async () => {
    const { status, stderr } = await runObdconv([
      `oci:${target}:out`,
      `oci:${join(root, 'twice')}:out`,
    ]);
    assert.equal(status, 1);
    assert.match(stderr, /already/);
    assert.ok(!existsSync(join(root, 'twice', 'index.json')));
  });
});

describe('a wrong source', () => {
  const layout = join(root, 'damaged');
  const builder = new LayoutBuilder(layout);
  const layer = gzipped[0] as LayerSource;
  const untouched = join(root, 'never');

  async function fails(tag: string, status: number, message: RegExp, ...flags: string[]) {
    const args = ['--work-dir', work, ...flags, `oci:${layout}:${tag}`, `oci:${untouched}:out`];
    const finished = await runObdconv(args);
    assert.equal(finished.status, status, finished.stderr);
    assert.match(finished.stderr, message);
    assert.ok(!finished.stderr.includes('    at '), 'a message, not a stack');
    assert.deepEqual(readdirSync(work), []);
    const index = join(untouched, 'index.json');
    if (existsSync(index)) assert.deepEqual(readJson<{ manifests: [] }>(index).manifests, []);
  }

  test('is an image with any annotation of an overlaybd layer', async () => {
    const annotations = { 'containerd.io/snapshot/overlaybd/version': '0.1.0' };
    builder.tag('marked', builder.addImage([{ ...layer, annotations }]));
    await fails('marked', 1, /it is an overlaybd image already/);
  });

  test('a tag that is not there', async () => {
    await fails('none', 1, /none/);
  });

  test('a layer that is cut short', async () => {
    const image = builder.addImage([layer]);
    builder.tag('cut', image);
    const path = builder.blobPath(sha256(layer.blob));
    writeFileSync(path, layer.blob.subarray(0, layer.blob.length - 1000));
    await fails('cut', 1, /sha256.*its descriptor says/);
  });

  test('a layer with a flipped bit', async () => {
    const flipped = Buffer.from(layer.blob);
    flipped[30_000] = (flipped[30_000] as number) ^ 4;
    writeFileSync(builder.blobPath(sha256(layer.blob)), flipped);
    await fails('cut', 1, /sha256:/);
  });

  test('a layer that is not what the config says', async () => {
    builder.tag('diff', builder.addImage([{ ...layer, diffId: sha256(Buffer.from('other')) }]));
    writeFileSync(builder.blobPath(sha256(layer.blob)), layer.blob);
    await fails('diff', 1, /its digest is/);
  });

  test('a layer that climbs out of the root', async () => {
    const tar = tarOf([{ name: '../evil' }]);
    builder.tag('evil', builder.addImage([{ mediaType: TAR, blob: tar, diffId: sha256(tar) }]));
    await fails('evil', 1, /"\.\.\/evil".*out of the root/);
  });

  test('an invalid command line', async () => {
    for (const args of [[], ['oci:x'], ['a', 'b', 'c'], ['--nonsense', 'oci:x', 'oci:y']]) {
      assert.equal((await runObdconv(args)).status, 2, args.join(' '));
    }
    for (const flags of [
      ['--bs', '5'],
      ['--vsize', '0'],
      ['--algorithm', 'lzo'],
    ]) {
      assert.equal((await runObdconv([...flags, 'oci:x', 'oci:y'])).status, 2, flags.join(' '));
    }
    assert.equal((await runObdconv(['--platform', 'pdp11', 'oci:x', 'oci:y'])).status, 2);
    const help = await runObdconv(['--help']);
    assert.equal(help.status, 0);
    assert.match(help.stdout, /docker:\/\//);
  });

  test('a work directory that is full', { skip }, async () => {
    const small = join(root, 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=300k', 'tmpfs', small]);
    try {
      builder.tag('whole', builder.addImage([layer]));
      const args = ['--work-dir', small, `oci:${layout}:whole`, `oci:${untouched}:out`];
      const { status, stderr } = await runObdconv(args);
      assert.equal(status, 1);
      assert.match(stderr, /no space left.*--work-dir/is);
      assert.ok(stderr.includes(small));
      assert.deepEqual(readdirSync(small), []);
    } finally {
      execFileSync('umount', [small]);
    }
  });
});

describe('an index', () => {
  const layout = join(root, 'index');
  const builder = new LayoutBuilder(layout);
  const layerOf = (content: string): LayerSource => {
    const tar = tarOf([{ name: 'etc/arch', content }]);
    return { mediaType: TAR, blob: tar, diffId: sha256(tar) };
  };
  const images = (['amd64', 'arm64'] as const).map((architecture) => ({
    ...builder.addImage([layerOf(architecture)], architecture),
    platform: { os: 'linux', architecture },
  }));
  const attestation = {
    ...builder.addImage([layerOf('attestation')], 'unknown'),
    platform: { os: 'unknown', architecture: 'unknown' },
    annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
  };
  const manifests = [...images, attestation];
  const mediaType = 'application/vnd.oci.image.index.v1+json';
  builder.tag('all', builder.addJson(mediaType, { schemaVersion: 2, mediaType, manifests }));

  test('is converted for one platform into a manifest', async () => {
    const target = join(root, 'one');
    const args = ['--work-dir', work, '--platform', 'linux/arm64'];
    const { status, stderr } = await runObdconv([
      ...args,
      `oci:${layout}:all`,
      `oci:${target}:out`,
    ]);
    assert.equal(status, 0, stderr);
    const config = readJson<{ architecture: string }>(
      blobPath(target, manifestOf(target, 'out').config.digest),
    );
    assert.equal(config.architecture, 'arm64');
  });

  test('is converted whole into an index without attestations', async () => {
    const target = join(root, 'all');
    const args = ['--work-dir', work, '--all-platforms', `oci:${layout}:all`, `oci:${target}:out`];
    const { status, stderr } = await runObdconv(args);
    assert.equal(status, 0, stderr);
    const tagged = taggedManifest(target, 'out');
    assert.equal(tagged.mediaType, mediaType);
    const index = readJson<{ manifests: Descriptor[] }>(blobPath(target, tagged.digest));
    assert.deepEqual(
      index.manifests.map(({ platform }) => platform),
      images.map(({ platform }) => platform),
    );
    for (const { digest, platform } of index.manifests) {
      const manifest = readJson<Manifest>(blobPath(target, digest));
      const config = readJson<{ architecture: string }>(blobPath(target, manifest.config.digest));
      assert.equal(config.architecture, platform?.['architecture']);
    }
  });

  test('without the platform names those it has', async () => {
    const args = ['--platform', 'linux/s390x', `oci:${layout}:all`, `oci:${join(root, 'x')}:out`];
    const { status, stderr } = await runObdconv(args);
    assert.equal(status, 1);
    assert.match(stderr, /linux\/amd64.*linux\/arm64/);
  });
});

describe('an interrupted conversion', () => {
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    test(`${signal} leaves nothing and exits ${status}`, async () => {
      const target = join(root, signal);
      const args = ['--work-dir', work, `oci:${source.directory}:nasty`, `oci:${target}:out`];
      const running = startObdconv(args);
      while (readdirSync(work).length === 0 && running.child.exitCode === null) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      running.child.kill(signal);
      const finished = await running.finished;
      assert.equal(finished.status, status, finished.stderr);
      assert.deepEqual(readdirSync(work), []);
      const index = join(target, 'index.json');
      if (existsSync(index)) assert.deepEqual(readJson<{ manifests: [] }>(index).manifests, []);
    });
  }
});

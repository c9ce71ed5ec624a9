/**
 * Goal: no command destroys its source, or reports success for an image that cannot run.
 * Method: real commands, Debian's registry and a real containerd; compares the source before and after.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { PrivateContainerd, unfit } from '../support/containerd-private.js';
import {
  blobPath,
  type LayerSource,
  LayoutBuilder,
  sha256,
  taggedManifest,
} from '../support/oci-layout-builder.js';
import { runObdconv } from '../support/run-obdconv.js';
import { obdctl } from '../support/run-obdctl.js';
import { tarOf } from '../support/tar-builder.js';
import { trustCase } from '../support/trust-case.js';

const GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const ARCHITECTURE = arch() === 'arm64' ? 'arm64' : 'amd64';
const LAYERS = 3;

function layerOf(name: string, annotations = {}): LayerSource {
  const tar = tarOf([{ name, content: randomBytes(10_000) }]);
  return { mediaType: GZIP_LAYER, blob: gzipSync(tar), diffId: sha256(tar), annotations };
}

/** Adds an image with one overlaybd layer over a plain one, and an index that lists it. */
function addMixed(layout: LayoutBuilder): void {
  const overlaybd = { 'containerd.io/snapshot/overlaybd/version': '0.1.0' };
  const mixed = layout.addImage([layerOf('a'), layerOf('b', overlaybd)], ARCHITECTURE);
  layout.tag('mixed', mixed);
  const platform = { os: 'linux', architecture: ARCHITECTURE };
  const manifests = [{ ...mixed, platform }];
  layout.tag('index', layout.addJson(INDEX, { schemaVersion: 2, mediaType: INDEX, manifests }));
}

function sampleLayout(folder: string): LayoutBuilder {
  const layout = new LayoutBuilder(join(folder, 'layout'));
  const layers = Array.from({ length: LAYERS }, (_, i) => layerOf(`file${i}`));
  layout.tag('1', layout.addImage(layers, ARCHITECTURE));
  return layout;
}

async function withFolder(body: (folder: string) => Promise<string>): Promise<string> {
  const folder = mkdtempSync('/var/tmp/obdh.');
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

trustCase(
  'commands',
  'obdconv of a layout onto itself',
  'refused in every spelling, index.json unchanged; --force and other tags work',
  async () =>
    await withFolder(async (folder) => {
      const { directory } = sampleLayout(folder);
      const index = join(directory, 'index.json');
      const before = readFileSync(index, 'utf8');
      symlinkSync(directory, join(folder, 'link'));
      mkdirSync(join(folder, 'other'));
      const spellings = [
        [`oci:${directory}:1`, `oci:${directory}:1`],
        [`oci:${directory}`, `oci:${directory}:1`],
        [`oci:${directory}`, `oci:${directory}`],
        [`oci:${directory}:1`, `oci:${folder}/link:1`],
        [`oci:${folder}/link`, `oci:${folder}/other/../layout/:1`],
      ] as const;
      for (const [source, destination] of spellings) {
        const { status, stderr } = await runObdconv([source, destination]);
        assert.equal(status, 2, `${source} ${destination}: ${stderr}`);
        assert.match(stderr, /--force/);
        assert.equal(readFileSync(index, 'utf8'), before);
      }
      const beside = await runObdconv([`oci:${directory}:1`, `oci:${directory}:1-obd`]);
      assert.equal(beside.status, 0, beside.stderr);
      const forced = await runObdconv(['--force', `oci:${directory}:1`, `oci:${directory}:1`]);
      assert.equal(forced.status, 0, forced.stderr);
      assert.equal(taggedManifest(directory, '1').digest, forced.stdout.trim());
      return `${spellings.length} spellings refused, a new tag and --force taken`;
    }),
);

trustCase(
  'commands',
  'obdconv to a destination that cannot be written, and to one in a new directory',
  'refused before a layer is converted; parents are made',
  async () =>
    await withFolder(async (folder) => {
      const { directory } = sampleLayout(folder);
      const source = `oci:${directory}:1`;
      const away = await runObdconv([source, 'docker://127.0.0.1:1/x:1']);
      assert.equal(away.status, 1);
      assert.ok(!away.stderr.includes('Converting'), away.stderr);
      const nested = await runObdconv([source, `oci:${folder}/a/b/c:1`]);
      assert.equal(nested.status, 0, nested.stderr);
      const failed = await runObdconv([`${source}x`, `oci:${folder}/d/e:1`]);
      assert.equal(failed.status, 1);
      assert.ok(!existsSync(join(folder, 'd')), 'directories are left');
      return 'unreachable registry: nothing converted; a/b/c made; d/e taken back';
    }),
);

trustCase(
  'commands',
  'obdctl layer export of a wrong stack, and onto a file',
  'refused, the file untouched; the right stack and --force work',
  async () =>
    await withFolder(async (folder) => {
      const { directory } = sampleLayout(folder);
      const { stdout } = await runObdconv([`oci:${directory}:1`, `oci:${folder}/obd:1`]);
      const manifest = JSON.parse(readFileSync(blobPath(`${folder}/obd`, stdout.trim()), 'utf8'));
      const [a, b, c] = (manifest.layers as { digest: string }[]).map(({ digest }) =>
        blobPath(`${folder}/obd`, digest),
      ) as [string, string, string];
      const out = join(folder, 'disk.raw');
      const wrong = [[c, b, a], [a, c], [b, c], [b]];
      for (const layers of wrong) {
        const { status, stderr } = await obdctl('layer', 'export', out, ...layers);
        assert.equal(status, 1, stderr);
        assert.match(stderr, /parent/);
        assert.ok(!existsSync(out));
      }
      const right = await obdctl('layer', 'export', out, a, b, c);
      assert.equal(right.status, 0, right.stderr);
      const again = await obdctl('layer', 'export', out, a, b);
      assert.equal(again.status, 1);
      assert.match(again.stderr, /it exists/);
      const forced = await obdctl('layer', 'export', '--force', out, a, b);
      assert.equal(forced.status, 0, forced.stderr);
      return `${wrong.length} wrong stacks and an existing file refused`;
    }),
);

trustCase(
  'commands',
  'obdconv of a reference onto itself; obdctl rpull of overlaybd with other snapshotters',
  'refused in every spelling, before anything is written; plain images are pulled as before',
  async () => {
    const containerd = await PrivateContainerd.start();
    try {
      return await withFolder(async (folder) => {
        const layout = sampleLayout(folder);
        addMixed(layout);
        const reference = await containerd.push(`${layout.directory}:1`, 'app:latest');
        const port = containerd.registry.split(':')[1];
        const name = `127.0.0.1:${port}/app`;
        const digest = taggedManifest(layout.directory, '1').digest;
        const spellings = [
          [reference, reference],
          [`docker://${name}`, `${name}:latest`],
          [name, `docker://localhost:${port}/app`],
          [`${name}@${digest}`, name],
          [`${name}:other@${digest}`, `localhost:${port}/app:latest`],
        ] as const;
        for (const [source, destination] of spellings) {
          const { status, stderr } = await runObdconv([source, destination]);
          assert.equal(status, 2, `${source} ${destination}: ${stderr}`);
          assert.match(stderr, /--force/);
        }
        // Other names of the same registry, which only its answer tells apart from other registries.
        const others = [`[::ffff:127.0.0.1]:${port}`, `0.0.0.0:${port}`];
        for (const other of others) {
          const ends = [reference, `${other}/app:latest`];
          for (const [from = '', to = ''] of [ends, [...ends].reverse()]) {
            const { status, stderr } = await runObdconv(['--plain-http', other, from, to]);
            assert.equal(status, 2, `${from} ${to}: ${stderr}`);
            assert.match(stderr, /--force/);
          }
        }
        const requests = await containerd.requests();
        assert.ok(!requests.some((line) => /"GET \S+blobs/.test(line)), 'a blob was read');
        const converted = await runObdconv([name, `${name}:obd`]);
        assert.equal(converted.status, 0, converted.stderr);
        const pull = (image: string, snapshotter: string) =>
          obdctl(
            ...['rpull', '--plain-http', '--address', containerd.socket],
            ...['--namespace', containerd.namespace, '--snapshotter', snapshotter, image],
          );
        const mixed = await containerd.push(`${layout.directory}:mixed`, 'app:mixed');
        const index = await containerd.push(`${layout.directory}:index`, 'app:index', '--all');
        const images = [`${name}:obd`, mixed, index];
        for (const image of images) {
          for (const snapshotter of ['overlayfs', 'native']) {
            const { status, stderr } = await pull(image, snapshotter);
            assert.equal(status, 1, stderr);
            assert.match(stderr, /it is an overlaybd image/);
          }
        }
        const content = await containerd.ctr('content', 'ls', '-q');
        assert.equal(content.trim(), '');
        const plain = await pull(name, 'overlayfs');
        assert.equal(plain.status, 0, plain.stderr);
        return `${spellings.length + 2 * others.length} spellings refused; ${2 * images.length} pulls refused`;
      });
    } finally {
      await containerd.stop();
    }
  },
  { skip: unfit || undefined },
);

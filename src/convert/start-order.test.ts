/**
 * Goal: a converted image names what its entry point will read, as pages and chunks of the very blobs that were written; the same
 * image gives the same bytes; no fault of a load order fails a conversion.
 * Method: images of two small layers, converted between OCI layouts or to a registry on loopback. The pages of the order are read
 * from the written blobs, by way of its chunks alone.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { digestOf } from '../../test/support/load-orders.js';
import {
  blobPath,
  LayoutBuilder,
  type Descriptor as LayoutDescriptor,
  sha256,
} from '../../test/support/oci-layout-builder.js';
import { ReferrerRegistry } from '../../test/support/referrer-registry.js';
import { tarOf } from '../../test/support/tar-builder.js';
import { CHUNK_BYTES, type RandomAccessFile } from '../io/random-access-file.js';
import { LAYER_FORMATS } from '../layers/layer-formats.js';
import { openLayer } from '../layers/open-layer.js';
import { HASH_TREE_ANNOTATION } from '../layers/overlaybd-annotations.js';
import { encodeLoadOrder, type LoadOrder, parseLoadOrder } from '../load-order/load-order.js';
import { sha256Of } from '../oci/digest.js';
import type { ImageDestination } from '../oci/image-store.js';
import { type Descriptor, type ImageManifest, parseManifest } from '../oci/manifest.js';
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR, OCI_MANIFEST } from '../oci/media-types.js';
import { OciLayoutDestination } from '../registry/oci-layout-destination.js';
import { OciLayoutSource } from '../registry/oci-layout-source.js';
import { openImageDestination } from '../registry/open-image-store.js';
import { RegistryClient } from '../registry/registry-client.js';
import { RegistryHosts } from '../registry/registry-hosts.js';
import { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { convertImage } from './convert-image.js';
import type { ConvertOptions } from './convert-manifest.js';
import { StoredFile } from './stored-file.js';

const NAMED = 'dev.obd-ts.load-order';
const ARTIFACT = 'application/vnd.obd-ts.load-order.v1';
const home = mkdtempSync(join(tmpdir(), 'obd-start-order-'));
after(() => rmSync(home, { recursive: true }));

/** Bytes that no codec makes much smaller, different for each seed. */
function noise(seed: number, bytes: number): Buffer {
  let state = seed;
  return Buffer.from(
    Uint8Array.from({ length: bytes }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state >>> 24;
    }),
  );
}

const SHELL = noise(1, 20_000);
const SCRIPT = Buffer.from('#!/bin/sh\n. /etc/app.conf\nexec /bin/tool\n'.padEnd(100, '#'));
const SETTINGS = Buffer.from(`A=1\n${'# comment\n'.repeat(50)}`);
const TOOL = noise(2, 9_000);
const UNUSED = noise(3, 3_000_000);

const LAYERS = [
  tarOf([
    { name: 'bin/sh', content: SHELL, mode: 0o755 },
    { name: 'bin/tool', content: noise(4, 9_000), mode: 0o755 },
    { name: 'usr/unused', content: UNUSED, mode: 0o644 },
  ]),
  tarOf([
    { name: 'app/start.sh', content: SCRIPT, mode: 0o755 },
    { name: 'etc/app.conf', content: SETTINGS, mode: 0o644 },
    { name: 'bin/tool', content: TOOL, mode: 0o755 },
    { name: 'usr/other', content: noise(5, 2_000_000), mode: 0o644 },
  ]),
];

const source = new LayoutBuilder(join(home, 'source'));
function addImage(
  config: unknown,
  about: { readonly annotations?: Record<string, string>; readonly architecture?: string } = {},
): LayoutDescriptor {
  const { annotations, architecture = 'amd64' } = about;
  const configOf = source.addJson(OCI_CONFIG, {
    architecture,
    os: 'linux',
    config,
    rootfs: { type: 'layers', diff_ids: LAYERS.map(sha256) },
  });
  const layers = LAYERS.map((tar) => source.addBlob(OCI_LAYER_TAR, tar));
  return source.addJson(OCI_MANIFEST, {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: configOf,
    layers,
    annotations,
  });
}

const STARTS = { Entrypoint: ['/app/start.sh'], Env: ['PATH=/bin'] };
const ANNOTATIONS = { title: 'app', [NAMED]: `${digestOf(1)}@9` };
source.tag('starts', addImage(STARTS, { annotations: ANNOTATIONS }));
source.tag('silent', addImage({}));
source.tag('odd', addImage({ Entrypoint: '/app/start.sh' }));
const platforms = ['amd64', 'arm64'].map((architecture) => ({
  ...addImage(STARTS, { architecture }),
  platform: { os: 'linux', architecture },
}));
source.tag(
  'index',
  source.addJson(OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests: platforms }),
);

interface Run {
  readonly from?: string;
  readonly order?: ConvertOptions['order'];
  readonly allPlatforms?: boolean;
}

/** @returns What was published, and the warnings. */
async function convertTo(
  destination: ImageDestination,
  { from = 'starts', order = 'predicted', allPlatforms = false }: Run = {},
): Promise<{ readonly published: Descriptor; readonly warnings: readonly string[] }> {
  const warnings: string[] = [];
  const work = mkdtempSync(join(home, 'work-'));
  const published = await convertImage(
    new OciLayoutSource(source.directory, from),
    destination,
    { allPlatforms, platform: undefined },
    {
      format: { algorithm: 'zstd', blockBytes: 16_384, virtualBytes: 1 << 30 },
      formats: LAYER_FORMATS,
      workDirectory: work,
      order,
      progress: {
        imageStarted: () => {},
        bytesRead: () => {},
        layerConverted: () => {},
        bytesSent: () => {},
        layerDone: () => {},
        warning: (message) => warnings.push(message),
      },
      stop: new AbortController(),
    },
  );
  await destination.close();
  assert.deepEqual(readdirSync(work), []);
  return { published, warnings };
}

interface Written {
  readonly directory: string;
  readonly manifest: ImageManifest;
  readonly bytes: Buffer;
  /** As the annotation names it. */
  readonly order: LoadOrder | undefined;
  readonly warnings: readonly string[];
}

async function converted(run: Run = {}): Promise<Written> {
  const directory = mkdtempSync(join(home, 'out-'));
  const { published, warnings } = await convertTo(new OciLayoutDestination(directory, 't'), run);
  const bytes = readFileSync(blobPath(directory, published.digest));
  const parsed = parseManifest(bytes, OCI_MANIFEST, 'manifest');
  assert.ok(parsed.kind === 'image');
  const { manifest } = parsed;
  const [digest, size] = manifest.annotations?.[NAMED]?.split('@') ?? [];
  if (digest === undefined) return { directory, manifest, bytes, order: undefined, warnings };
  const document = readFileSync(blobPath(directory, digest));
  assert.equal(document.length, Number(size));
  const order = parseLoadOrder(document, digest);
  assert.deepEqual(encodeLoadOrder(order), document);
  return { directory, manifest, bytes, order, warnings };
}

/** A blob of which only some chunks are there, once it was opened. */
class ChunkedBlob extends StoredFile {
  chunks: ReadonlySet<number> | undefined;

  override tryRead(target: Uint8Array, offset: number): boolean {
    for (let at = offset; at < offset + target.length; at++) {
      const chunk = Math.floor(at / CHUNK_BYTES);
      assert.ok(this.chunks?.has(chunk) !== false, `chunk ${chunk} is not in the order`);
      at = (chunk + 1) * CHUNK_BYTES - 1;
    }
    return super.tryRead(target, offset);
  }
}

/** The pages of an order, one after the other, read from the blobs of a layout by its chunks alone. */
async function pagesOf({ directory, manifest, order }: Written): Promise<Buffer> {
  const { runs, chunks } = order!;
  const files: RandomAccessFile[] = [];
  for (const [i, { digest, annotations }] of manifest.layers.entries()) {
    const [root = '', offset] = annotations?.[HASH_TREE_ANNOTATION]?.split('@') ?? [];
    assert.deepEqual(order!.layers[i], { digest, root });
    const blob = new ChunkedBlob(blobPath(directory, digest));
    const dependencies = { formats: LAYER_FORMATS, decoded: new DecodedBlocks(1 << 20) };
    const tree = { root, offset: Number(offset) };
    const { sources } = await openLayer(blob, dependencies, { hashTree: tree });
    files.push(sources[0]!);
    blob.chunks = new Set([...chunks].filter((_, at) => at % 2 === 1 && chunks[at - 1] === i));
  }
  const pages = runs.map(({ layer, leaf, count }) => {
    const file = files[layer]!;
    const end = Math.min(file.sizeBytes, (leaf + count) * 4096);
    const bytes = Buffer.alloc(end - leaf * 4096);
    assert.ok(file.tryRead(bytes, leaf * 4096));
    return bytes;
  });
  for (const file of files) file.close();
  return Buffer.concat(pages);
}

describe('a converted image', () => {
  test('names what its entry point is predicted to read, with the chunks for it', async () => {
    const written = await converted();
    const { order, manifest } = written;
    assert.deepEqual(written.warnings, []);
    assert.equal(order?.kind, 'predicted');
    assert.equal(order.starts, 0);
    assert.equal(manifest.annotations?.['title'], 'app');
    const pages = await pagesOf(written);
    for (const part of [SCRIPT, SETTINGS, SHELL.subarray(0, 4096), TOOL.subarray(0, 4096)]) {
      assert.notEqual(pages.indexOf(part), -1);
    }
    assert.equal(pages.indexOf(UNUSED.subarray(0, 100)), -1);
    assert.ok(pages.length < 100_000, `${pages.length} bytes`);
    assert.equal(order.runs[0]!.layer, 1, 'the script is first, and in the upper layer');
  });

  test('has the same bytes each time', async () => {
    const [first, second] = [await converted(), await converted()];
    assert.ok(first.bytes.equals(second.bytes));
    assert.deepEqual(first.order, second.order);
  });

  test('lists itself only in the index of a layout', async () => {
    const { directory } = await converted();
    const { manifests } = JSON.parse(readFileSync(join(directory, 'index.json'), 'utf8'));
    assert.equal(manifests.length, 1);
    await new OciLayoutSource(directory, undefined).resolve();
  });

  test('has no load order without a prediction, or a command', async () => {
    const omitted = await converted({ order: 'none' });
    assert.equal(omitted.order, undefined);
    assert.deepEqual(omitted.manifest.annotations, { title: 'app' });
    const silent = await converted({ from: 'silent' });
    assert.equal(silent.order, undefined);
    assert.equal(silent.manifest.annotations, undefined);
    assert.deepEqual(silent.warnings, []);
  });

  test('is written without a load order if the prediction fails', async () => {
    const { order, warnings } = await converted({ from: 'odd' });
    assert.equal(order, undefined);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /no load order, and is complete without: .*Entrypoint/);
  });

  test('names the files of a list in its order, and warns of those that it lacks', async () => {
    const files = ['/etc/app.conf', '/none', '/bin', '/bin/sh', '/usr/../bin/tool', '/no\nname'];
    const written = await converted({ from: 'silent', order: { files } });
    const { order, warnings } = written;
    assert.equal(order?.kind, 'list');
    const pages = await pagesOf(written);
    const places = [SETTINGS, SHELL, TOOL].map((part) => pages.indexOf(part));
    assert.ok(!places.includes(-1), `${places}`);
    assert.deepEqual(
      places.toSorted((a, b) => a - b),
      places,
    );
    assert.deepEqual(warnings, [
      'left out, as the image has no such file: 2 of the 6 files of the priority list: "/none", "/no\\nname"',
      'left out, as a list names files, and these are directories: 1 of the 6 files of the priority list: "/bin"',
    ]);
  });

  test('is omitted with a warning if no file of a list is in the image', async () => {
    const { order, warnings } = await converted({ order: { files: ['/bin'] } });
    assert.equal(order, undefined);
    assert.equal(warnings.length, 2);
    assert.match(warnings[1]!, /gets no load order: .* takes the place of a prediction/);
  });
});

describe('in a registry', () => {
  const artifactsOf = (registry: ReferrerRegistry) =>
    [...registry.manifests.values()]
      .map(({ bytes }) => JSON.parse(bytes.toString()))
      .filter(({ subject }) => subject !== undefined);

  async function withRegistry(
    work: (registry: ReferrerRegistry, open: () => ImageDestination) => Promise<void>,
  ): Promise<void> {
    const registry = await ReferrerRegistry.start();
    const client = new RegistryClient({
      hosts: new RegistryHosts([]),
      credentials: { label: 'none', find: async () => undefined },
    });
    try {
      const name = `docker://${registry.host}/x/app:obd`;
      await work(registry, () => openImageDestination(name, { client }));
    } finally {
      await client.close();
      await registry.stop();
    }
  }

  test('an artifact of each image keeps its load order', async () => {
    await withRegistry(async (registry, open) => {
      const { published, warnings } = await convertTo(open(), {
        from: 'index',
        allPlatforms: true,
      });
      assert.deepEqual(warnings, []);
      const index = JSON.parse(registry.manifestAt('x/app', published.digest)!.bytes.toString());
      const artifacts = artifactsOf(registry);
      assert.equal(artifacts.length, 2);
      for (const [i, { digest, size }] of index.manifests.entries()) {
        const artifact = artifacts.find(({ subject }) => subject.digest === digest);
        assert.equal(artifact.artifactType, ARTIFACT);
        assert.deepEqual(artifact.subject, { mediaType: OCI_MANIFEST, digest, size }, `${i}`);
        const manifest = JSON.parse(registry.manifestAt('x/app', digest)!.bytes.toString());
        const named = manifest.annotations[NAMED];
        assert.deepEqual(artifact.annotations, {
          [NAMED]: named,
          [`${NAMED}.command`]: sha256Of(Buffer.from(STARTS.Entrypoint.join(' '))),
          [`${NAMED}.kind`]: 'predicted',
          [`${NAMED}.starts`]: '0',
        });
        const [layer] = artifact.layers;
        assert.equal(layer.mediaType, `${ARTIFACT}+json`);
        assert.equal(named, `${layer.digest}@${layer.size}`);
        assert.equal(registry.blobs.get(layer.digest)?.length, layer.size);
      }
    });
  });

  test('a second conversion adds nothing', async () => {
    await withRegistry(async (registry, open) => {
      await convertTo(open());
      const blobs = [...registry.blobs.keys()];
      const manifests = [...registry.manifests.keys()];
      await convertTo(open());
      assert.deepEqual([...registry.blobs.keys()], blobs);
      assert.deepEqual([...registry.manifests.keys()], manifests);
    });
  });

  test('an image is published though its artifact is refused', async () => {
    await withRegistry(async (registry, open) => {
      registry.faults.push({ of: /^PUT .*manifests\/sha256:/, answer: { status: 405 } });
      const { published, warnings } = await convertTo(open());
      assert.equal(registry.tags.get('x/app:obd'), published.digest);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0]!, /^the registry may collect the load order, .*405/);
      assert.deepEqual(artifactsOf(registry), []);
    });
  });
});

/**
 * Goal: a kind of layer is added by a row in the table alone, as docs/hacking.md says: manifests, image configs, obdconv,
 * `obdctl layer` and the snapshotter take it from there.
 * Method: a row for raw disks, below an overlaybd layer, through the shipped classes with a table that has this row.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readConvertible } from '../../src/convert/convert-manifest.js';
import { ErrorCodes } from '../../src/errors.js';
import { blockLayers } from '../../src/image/block-layers.js';
import { type BlobAddress, openImage } from '../../src/image/open-image.js';
import { LocalFile } from '../../src/io/local-file.js';
import { type RandomAccessFile, readFully } from '../../src/io/random-access-file.js';
import type { LayerFormat, LayerOpening } from '../../src/layers/layer-format.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import type { LowerLayer } from '../../src/layers/lower-layer.js';
import { openStack } from '../../src/layers/stacked-files.js';
import { CommittedLayerWriter } from '../../src/lsmt/committed-writer.js';
import type { Layer } from '../../src/lsmt/layer.js';
import { NULL_UUID } from '../../src/lsmt/layer-uuid.js';
import { SegmentsBuilder } from '../../src/lsmt/segments.js';
import { OciLayoutSource } from '../../src/registry/oci-layout-source.js';
import { servableLayer } from '../../src/snapshotter/labels.js';
import { mountableImage } from '../../src/snapshotter/mountable-image.js';
import type { Layer as RecordedLayer, Snapshot } from '../../src/snapshotter/snapshot.js';
import { committedLayer } from '../../src/snapshotter/unpacked-layer.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { MemorySink } from '../support/memory-file.js';
import { LayoutBuilder, sha256 } from '../support/oci-layout-builder.js';
import { UNLIMITED_INDEX_MEMORY } from '../support/unlimited-memory.js';

const MEDIA_TYPE = 'application/vnd.example.disk.raw';
const DIGEST_ANNOTATION = 'containerd.io/snapshot/raw-disk.digest';
const SIZE_ANNOTATION = 'containerd.io/snapshot/raw-disk.size';
const OVERLAYBD = 'containerd.io/snapshot/overlaybd/';
/** Magic of an ext4 file system, at 1024 + 56. */
const EXT4_MAGIC = Buffer.from('53ef', 'hex');

const DISK_BYTES = 1 << 20;

/** The row. */
const RAW_DISK: LayerFormat = {
  name: 'raw-disk',
  holds: 'blocks',
  unpackedName: 'disk.raw',
  annotationPrefix: undefined,
  isDescribedBy: ({ mediaType, annotations }) =>
    mediaType === MEDIA_TYPE || annotations?.[DIGEST_ANNOTATION] !== undefined,
  describe: ({ digest, size, annotations = {} }) => ({
    holds: 'blocks',
    lower: {
      digest: digest ?? annotations[DIGEST_ANNOTATION] ?? '',
      size: size ?? Number(annotations[SIZE_ANNOTATION]),
      kind: 'raw-disk',
    },
    fileSystem: 'ext4',
  }),
  recognizes: (head) => EXT4_MAGIC.equals(head.subarray(1080, 1082)),
  begin: (blob) => new RawDiskOpening(blob),
};

class RawDiskOpening implements LayerOpening {
  readonly label: string;
  readonly isProved = false;
  readonly isChecked = false;
  readonly tableBytes = 0;
  readonly indexBytes = 0;
  readonly segmentsMax = 1;
  readonly #disk: RandomAccessFile;

  constructor(disk: RandomAccessFile) {
    this.label = disk.label;
    this.#disk = disk;
  }

  async loadHeaders(): Promise<void> {}

  async loadTable(): Promise<void> {}

  async loadIndex(): Promise<Layer> {
    const segments = new SegmentsBuilder();
    segments.add(0, this.#disk.sizeBytes / 512, 0, 0);
    return {
      label: this.label,
      virtualBytes: this.#disk.sizeBytes,
      uuid: NULL_UUID,
      parentUuid: NULL_UUID,
      userTag: '',
      segments: segments.finish(),
      sources: [this.#disk],
      bottomOnly: true,
      close: () => this.close(),
    };
  }

  close(): void {
    this.#disk.close();
  }
}

const FORMATS: readonly LayerFormat[] = [RAW_DISK, ...LAYER_FORMATS];

const disk = Buffer.alloc(DISK_BYTES, 'disk');
disk.set(EXT4_MAGIC, 1080);
/** An overlaybd layer on it, which replaces the page at 8192. */
const sink = new MemorySink();
const writer = new CommittedLayerWriter(sink, { virtualBytes: DISK_BYTES });
writer.write(8192, Buffer.alloc(4096, 'page'));
writer.finish();
const page = Buffer.from(sink.written);
const shown = Buffer.from(disk);
shown.fill('page', 8192, 8192 + 4096);

let directory: string;
let layout: LayoutBuilder;

before(() => {
  directory = mkdtempSync(join(tmpdir(), 'format-'));
  layout = new LayoutBuilder(join(directory, 'layout'));
  const image = layout.addImage([
    { mediaType: MEDIA_TYPE, blob: disk, diffId: sha256(disk) },
    {
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      blob: page,
      diffId: sha256(page),
      annotations: {
        [`${OVERLAYBD}version`]: '0.1.0',
        [`${OVERLAYBD}blob-digest`]: sha256(page),
        [`${OVERLAYBD}blob-size`]: String(page.length),
      },
    },
  ]);
  layout.tag('raw', image);
});
after(() => rmSync(directory, { recursive: true }));

const source = () => new OciLayoutSource(layout.directory, 'raw');
const decoded = () => new DecodedBlocks(1 << 20);

async function bytesOf(lowers: readonly LowerLayer[], formats = FORMATS): Promise<Buffer> {
  const repoBlobUrl = 'https://registry.example/v2/app/blobs';
  const image = await openImage(
    { repoBlobUrl, lowers: [...lowers] },
    {
      openBlob: async ({ digest }: BlobAddress) => LocalFile.open(layout.blobPath(digest)),
      formats,
      decoded: decoded(),
      memory: UNLIMITED_INDEX_MEMORY,
    },
  );
  const bytes = Buffer.alloc(image.disk.sizeBytes);
  await readFully(image.disk, bytes, 0);
  image.close();
  return bytes;
}

describe('a kind of layer that the table has a row for', () => {
  test('is found in a manifest by its media type, and opened as a disk', async () => {
    const { layers, fileSystem } = await blockLayers(source(), FORMATS, undefined);
    assert.equal(fileSystem, 'ext4');
    const lowers = layers.map(({ lower }) => lower);
    assert.deepEqual(lowers, [
      { digest: sha256(disk), size: disk.length, kind: 'raw-disk' },
      { digest: sha256(page), size: page.length },
    ]);
    assert.ok((await bytesOf(lowers)).equals(shown));
  });

  test('is recognised by its first bytes in an image config that does not say its kind', async () => {
    const lowers = [{ file: layout.blobPath(sha256(disk)) }, { digest: sha256(page) }];
    assert.ok((await bytesOf(lowers)).equals(shown));
  });

  test('is opened by the commands on layer files', async () => {
    const names = [sha256(disk), sha256(page)].map((digest) => layout.blobPath(digest));
    const dependencies = { formats: FORMATS, decoded: decoded() };
    const stack = await openStack(names, { targets: [], checksParents: true }, dependencies);
    const bytes = Buffer.alloc(stack.sizeBytes);
    await readFully(stack, bytes, 0);
    stack.close();
    assert.ok(bytes.equals(shown));
  });

  test('is not converted again', async () => {
    const found = await source().resolve();
    assert.equal(found.kind, 'image');
    await assert.rejects(readConvertible(source(), found.manifest, FORMATS), {
      code: ErrorCodes.FailedPrecondition,
    });
  });

  test('is served by the snapshotter, fetched on read or unpacked', async () => {
    const annotations = { [DIGEST_ANNOTATION]: sha256(disk), [SIZE_ANNOTATION]: `${disk.length}` };
    const described = servableLayer(FORMATS, { annotations });
    assert.ok(described !== undefined);
    const { lower, fileSystem } = described;
    const repoBlobUrl = 'https://registry.example/v2/app/blobs';
    const lazy: RecordedLayer = {
      type: 'blocks',
      lower: { ...lower, repoBlobUrl },
      fileSystem,
    };
    assert.deepEqual(configOf(lazy).lowers, [lower]);
    assert.ok((await bytesOf(configOf(lazy).lowers)).equals(disk));

    const files = join(directory, 'fs');
    mkdirSync(files);
    writeFileSync(join(files, 'disk.raw'), disk);
    const active = snapshotOf({ type: 'download', lower, fileSystem });
    const unpacked = await committedLayer(active, files, FORMATS);
    assert.deepEqual(unpacked, { type: 'blocks', lower, fileSystem, file: 'disk.raw' });
    assert.ok((await bytesOf(configOf(unpacked, files).lowers)).equals(disk));
  });
});

describe('a kind of layer that the table has no row for', () => {
  test('is a plain layer in a manifest, and refused in an image config', async () => {
    await assert.rejects(blockLayers(source(), LAYER_FORMATS, undefined), {
      code: ErrorCodes.FailedPrecondition,
      message: /layer 1 of 2.*plain/,
    });
    const digest = sha256(disk);
    await assert.rejects(bytesOf([{ digest, kind: 'raw-disk' }], LAYER_FORMATS), {
      code: ErrorCodes.Unsupported,
      message: /its kind is "raw-disk", and this build knows .*overlaybd-trace, overlaybd-turbo/,
    });
    await assert.rejects(bytesOf([{ digest }], LAYER_FORMATS), { code: ErrorCodes.Corrupt });
  });
});

function snapshotOf(layer: RecordedLayer): Snapshot {
  return {
    ...{ id: 1, name: 'raw', parent: '', kind: 'committed', labels: {}, layer },
    ...{ createdAtMs: 0, updatedAtMs: 0, usage: { sizeBytes: 0, inodes: 0 } },
    ...{ chainId: undefined, namespaces: [] },
  };
}

function configOf(layer: RecordedLayer, files = '/nowhere') {
  const top = snapshotOf(layer);
  return mountableImage({ top, layers: [top] }, () => files).config;
}

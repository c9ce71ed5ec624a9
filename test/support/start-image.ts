/** Images whose starts the tests of test/prefetch foresee: their layers, manifests, load orders and hot blobs. */
import { LayerBlobWriter } from '../../src/convert/layer-blob-writer.js';
import type { HotSource } from '../../src/hot-blob/hot-blob-writer.js';
import { writeHotBlob } from '../../src/hot-blob/hot-blob-writer.js';
import { LAYER_FORMATS } from '../../src/layers/layer-formats.js';
import { openLayer } from '../../src/layers/open-layer.js';
import { encodeLoadOrder, type LoadOrder } from '../../src/load-order/load-order.js';
import {
  HOT_PAGES_ANNOTATION,
  LOAD_ORDER_ANNOTATION,
} from '../../src/load-order/load-order-annotations.js';
import { LOAD_ORDER_ARTIFACT } from '../../src/load-order/order-artifact.js';
import { buildArtifact } from '../../src/oci/artifact.js';
import { sha256Of } from '../../src/oci/digest.js';
import { OCI_LAYER_TAR, OCI_MANIFEST } from '../../src/oci/media-types.js';
import { DecodedBlocks } from '../../src/zfile/decoded-blocks.js';
import { HashTree, type TreeAddress } from '../../src/zfile/hash-tree.js';
import { joined } from './hot-source.js';
import { MemoryFile, MemorySink } from './memory-file.js';
import { noisyPage, PAGE_BYTES } from './proved-layer.js';
import type { ReferrerRegistry } from './referrer-registry.js';

const FORM = { algorithm: 'lz4', blockBytes: PAGE_BYTES } as const;

export interface StartLayer {
  readonly blob: Buffer;
  readonly digest: string;
  /** Undefined for a layer that nothing proves. */
  readonly hashTree: TreeAddress | undefined;
}

export interface StartImage {
  /** The stacked disk. */
  readonly disk: Buffer;
  /** Bottom first. */
  readonly layers: readonly StartLayer[];
}

/** An image in a registry. */
export interface PlacedImage extends StartImage {
  readonly host: string;
  readonly repository: string;
  readonly manifest: { readonly digest: string; readonly size: number };
}

/** @param pageOf - Undefined for a page that the layer does not have. */
export function startLayer(
  diskBytes: number,
  pageOf: (page: number) => Buffer | undefined,
): StartLayer {
  const sink = new MemorySink();
  const writer = new LayerBlobWriter(sink, FORM, { virtualBytes: diskBytes });
  for (let page = 0; page < diskBytes / PAGE_BYTES; page++) {
    const bytes = pageOf(page);
    if (bytes !== undefined) writer.layer.write(page * PAGE_BYTES, bytes);
  }
  const hashTree = writer.finish();
  return { blob: sink.written, digest: sha256Of(sink.written), hashTree };
}

/** Two layers: a whole disk, and every third page of its second half above it. */
export function startImage(pages: number, seed: number): StartImage {
  const isUpper = (page: number) => page >= pages / 2 && page % 3 === 0;
  const layers = [
    startLayer(pages * PAGE_BYTES, (page) => noisyPage(page, seed)),
    startLayer(pages * PAGE_BYTES, (page) =>
      isUpper(page) ? noisyPage(page, seed + 1000) : undefined,
    ),
  ];
  const disk = Buffer.concat(
    Array.from({ length: pages }, (_, page) => noisyPage(page, isUpper(page) ? seed + 1000 : seed)),
  );
  return { disk, layers };
}

export function manifestOf({ layers }: StartImage): Buffer {
  const config = { mediaType: 'application/json', digest: sha256Of(CONFIG), size: CONFIG.length };
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config,
    layers: layers.map(({ digest, blob }) => {
      return { mediaType: OCI_LAYER_TAR, digest, size: blob.length };
    }),
  };
  return Buffer.from(JSON.stringify(manifest));
}

/** Of all manifests. */
export const CONFIG: Buffer = Buffer.from('{}');

export function placeImage(
  registry: ReferrerRegistry,
  image: StartImage,
  repository = 'team/app',
): PlacedImage {
  for (const blob of [CONFIG, ...image.layers.map((layer) => layer.blob)]) registry.addBlob(blob);
  const bytes = manifestOf(image);
  const digest = registry.addManifest(repository, 'latest', bytes, OCI_MANIFEST);
  return { ...image, host: registry.host, repository, manifest: { digest, size: bytes.length } };
}

/** The layers as sources of a hot blob. */
export async function hotSourcesOf({ layers }: StartImage): Promise<HotSource[]> {
  const decoded = new DecodedBlocks(1 << 20);
  return await Promise.all(
    layers.map(async ({ blob, digest, hashTree }) => {
      const stored = new MemoryFile(blob);
      const dependencies = { formats: LAYER_FORMATS, decoded };
      const layer = await openLayer(stored, dependencies, { digest, hashTree });
      const tree = await HashTree.open(stored, hashTree!, decoded);
      return { digest, root: tree.root, file: layer.sources[0]!, tree };
    }),
  );
}

/** A page of the disk in a layer's file: the layer's header is the first page, and the pages follow it in their order. */
export function leafOf(image: StartImage, page: number): readonly [layer: number, leaf: number] {
  const pages = image.disk.length / PAGE_BYTES;
  const isUpper = page >= pages / 2 && page % 3 === 0;
  if (!isUpper) return [0, page + 1];
  return [1, 1 + Math.ceil(page / 3) - Math.ceil(pages / 2 / 3)];
}

/** Runs of single pages, in the order of the disk's pages that are given. */
export function runsOf(image: StartImage, pages: readonly number[]): Uint32Array {
  return Uint32Array.from(pages.flatMap((page) => [...leafOf(image, page), 1]));
}

/** A hot blob of pages of the disk. */
export async function hotBlobOf(image: StartImage, pages: readonly number[]): Promise<Buffer> {
  return await joined(writeHotBlob(await hotSourcesOf(image), runsOf(image, pages)));
}

/** A recorded order of these chunks, (layer, chunk) each, and no page. */
export function orderOfChunks(image: StartImage, chunks: readonly number[]): LoadOrder {
  const layers = image.layers.map(({ digest, hashTree }) => ({ digest, root: hashTree?.root }));
  const numbers = Uint32Array.from(chunks);
  return { kind: 'recorded', starts: 1, readAheadBytes: 0, layers, runs: [], chunks: numbers };
}

/** A recorded order of these pages of the disk, each read once, and no chunk. */
export function orderOfPages(image: StartImage, pages: readonly number[]): LoadOrder {
  const runs = pages.map((page, ms) => {
    const [layer, leaf] = leafOf(image, page);
    return { layer, leaf, count: 1, ms, starts: 1 };
  });
  return { ...orderOfChunks(image, []), runs };
}

export interface Advice {
  /** Bytes of a blob, or what the annotation says in place of one. */
  readonly hot?: Uint8Array | string | undefined;
  readonly order?: LoadOrder | Uint8Array | string | undefined;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Adds an artifact of the image as anyone may who can push. @returns The digests of its blobs. */
export function addAdvice(
  registry: ReferrerRegistry,
  { repository, manifest }: PlacedImage,
  { hot, order, annotations = {} }: Advice,
): { readonly hot: string; readonly order: string; readonly artifact: string } {
  const named = (bytes: Uint8Array) => `${registry.addBlob(bytes)}@${bytes.length}`;
  const nameOf = (value: Uint8Array | string) => (typeof value === 'string' ? value : named(value));
  const document =
    order === undefined || typeof order === 'string' || order instanceof Uint8Array
      ? order
      : encodeLoadOrder(order);
  const hotName = hot === undefined ? '' : nameOf(hot);
  const orderName = document === undefined ? '' : nameOf(document);
  const all: Record<string, string> = { 'dev.obd-ts.load-order.kind': 'recorded', ...annotations };
  if (hotName !== '') all[HOT_PAGES_ANNOTATION] = hotName;
  if (orderName !== '') all[LOAD_ORDER_ANNOTATION] = orderName;
  const { bytes } = buildArtifact({
    artifactType: LOAD_ORDER_ARTIFACT,
    subject: { mediaType: OCI_MANIFEST, ...manifest },
    layers: [],
    annotations: all,
  });
  const artifact = registry.addManifest(repository, undefined, bytes, OCI_MANIFEST);
  return { hot: hotName.split('@')[0]!, order: orderName.split('@')[0]!, artifact };
}

/**
 * Converts the image of one manifest: its layers one by one, then its load order and its config. The caller stores the
 * manifest, under a tag or in an index, and then the artifact. Blobs that the destination already has are not sent again.
 *
 * A layer is sent while the next one is converted; at most one waits. The side that fails first stops the other. After
 * an error no manifest refers to the sent blobs, and the work directory is removed.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import type { LayerFormat } from '../layers/layer-format.js';
import { isMarked, type LayerKind } from '../layers/layer-kind.js';
import {
  BLOB_DIGEST_ANNOTATION,
  BLOB_FS_TYPE_ANNOTATION,
  BLOB_SIZE_ANNOTATION,
  HASH_TREE_ANNOTATION,
  METADATA_BYTES_ANNOTATION,
  NATIVE_VERSION,
  VERSION_ANNOTATION,
} from '../layers/overlaybd-annotations.js';
import { commandDigest } from '../load-order/command-line.js';
import { LOAD_ORDER_ANNOTATION, NAME_ANNOTATION } from '../load-order/load-order-annotations.js';
import { orderArtifact } from '../load-order/order-artifact.js';
import { sha256Of } from '../oci/digest.js';
import { chainIds, withDiffIds } from '../oci/image-identity.js';
import {
  type AddedArtifact,
  type ImageDestination,
  type ImageSource,
  readSmallBlob,
} from '../oci/image-store.js';
import {
  CONFIG_BYTES_MAX,
  type Descriptor,
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
} from '../oci/manifest.js';
import { DOCKER_CONFIG, OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST } from '../oci/media-types.js';
import { imageArgs } from '../predict/start-command.js';
import { type ConvertedLayer, LayerConverter, type OutputFormat } from './layer-converter.js';
import type { ConversionProgress, ConvertedBlob } from './progress.js';
import { unpackLayer } from './source-layer.js';
import { startOrder } from './start-order.js';
import { WorkDirectory } from './work-directory.js';

/** Annotations of this project describe the layers of one image, so none is copied to another. */
const OWN_PREFIX = 'dev.obd-ts.';

export interface ConvertOptions {
  readonly format: OutputFormat;
  /** The known kinds of layer: an image with such layers is not converted again. */
  readonly formats: readonly LayerFormat[];
  /** Each conversion makes its directory in it. */
  readonly workDirectory: string;
  /** The source of the load order: a prediction, or these files of the image. No load order for `none`. */
  readonly order: 'predicted' | 'none' | { readonly files: readonly string[] };
  readonly progress: ConversionProgress;
  /** Its signal must end the operations of source and destination; it is aborted here when one of them fails. */
  readonly stop: AbortController;
}

/** The image of one manifest, and the source and destination of its layers. */
export interface ManifestConversion {
  readonly source: ImageSource;
  readonly destination: ImageDestination;
  readonly manifest: ImageManifest;
  readonly config: ImageConfig;
}

/**
 * The config of an image, after a check that the image can be converted.
 *
 * @throws {ObdError} `Unsupported` for anything but a Linux image, `FailedPrecondition` for one that is overlaybd
 *   already, `Corrupt` if config and manifest disagree; as ImageSource.readBlob().
 */
export async function readConvertible(
  source: ImageSource,
  manifest: ImageManifest,
  kinds: readonly LayerKind[],
): Promise<ImageConfig> {
  const refuse = (problem: string, code: ObdError['code'] = ErrorCodes.Unsupported) =>
    new ObdError(code, `Cannot convert ${source.label}: ${problem}`);
  const { layers } = manifest;
  const { mediaType } = manifest.config;
  if (mediaType !== OCI_CONFIG && mediaType !== DOCKER_CONFIG) {
    throw refuse(`it is not a container image; its config is "${mediaType}"`);
  }
  if (layers.some((layer) => isMarked(kinds, layer))) {
    throw refuse('it is an overlaybd image already', ErrorCodes.FailedPrecondition);
  }
  if (layers.length === 0) throw refuse('it has no layers');
  const encrypted = layers.find((layer) => layer.mediaType.endsWith('+encrypted'));
  if (encrypted !== undefined) throw refuse(`its layer ${encrypted.digest} is encrypted`);
  const bytes = await readSmallBlob(source, manifest.config, CONFIG_BYTES_MAX);
  const config = parseImageConfig(bytes, `config ${manifest.config.digest} of ${source.label}`);
  if (config.os !== 'linux') throw refuse(`it is for ${JSON.stringify(config.os)}, not for Linux`);
  const diffIds = config.rootfs.diff_ids.length;
  if (diffIds === layers.length) return config;
  const found = `its manifest has ${layers.length} layers and its config ${diffIds} diff_ids`;
  throw refuse(found, ErrorCodes.Corrupt);
}

export interface ConvertedManifest {
  /** The OCI manifest. */
  readonly bytes: Buffer;
  /** Its load order, to be stored after it; undefined if there is none. */
  readonly artifact: AddedArtifact | undefined;
}

/**
 * Converts and stores layers, load order and config.
 *
 * @throws {ObdError} errors of source and destination, and of the layers' content.
 */
export async function convertManifest(
  conversion: ManifestConversion,
  options: ConvertOptions,
): Promise<ConvertedManifest> {
  const { destination, manifest, config } = conversion;
  const work = new WorkDirectory(options.workDirectory);
  try {
    const layers = await convertLayers(conversion, work, options);
    const artifact = await storedOrder(destination, layers, config, options);
    const diffIds = layers.map(({ digest }) => digest);
    const configBytes = withDiffIds(config, diffIds);
    const described = {
      mediaType: OCI_CONFIG,
      digest: sha256Of(configBytes),
      size: configBytes.length,
    };
    if (!(await destination.hasBlob(described))) await destination.putBlob(described, configBytes);
    const annotations = annotationsWith(manifest.annotations, artifact);
    const converted = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: described,
      layers: layers.map(descriptorOf),
      annotations,
    };
    return { bytes: Buffer.from(JSON.stringify(converted)), artifact };
  } finally {
    work.remove();
  }
}

/** Makes and stores the load order. A failure is a warning, as the image is complete without it. */
async function storedOrder(
  destination: ImageDestination,
  layers: readonly ConvertedLayer[],
  config: ImageConfig,
  { order, formats, progress, stop }: ConvertOptions,
): Promise<AddedArtifact | undefined> {
  if (order === 'none') return undefined;
  let artifact: AddedArtifact;
  try {
    const priorityList = order === 'predicted' ? undefined : order.files;
    const made = await startOrder({ layers, config, priorityList }, formats, (message) =>
      progress.warning(message),
    );
    if (made === undefined) return undefined;
    // A list may be of any start, a prediction is of the image's own command line.
    const args = order === 'predicted' ? imageArgs(config) : [];
    artifact = orderArtifact(made, undefined, { command: commandDigest(args), name: '' });
  } catch (error) {
    progress.warning(`the image gets no load order, and is complete without: ${messageOf(error)}`);
    return undefined;
  }
  stop.signal.throwIfAborted();
  for (const { descriptor, content } of artifact.blobs) {
    if (!(await destination.hasBlob(descriptor))) await destination.putBlob(descriptor, content);
  }
  return artifact;
}

/** The annotations of the converted manifest, the load order's among them; undefined if there are none. */
function annotationsWith(
  source: Readonly<Record<string, string>> | undefined,
  artifact: AddedArtifact | undefined,
): Readonly<Record<string, string>> | undefined {
  const kept = Object.entries(source ?? {}).filter(
    ([key]) => key === NAME_ANNOTATION || !key.startsWith(OWN_PREFIX),
  );
  const named = artifact?.annotations[LOAD_ORDER_ANNOTATION];
  const own = named === undefined ? [] : [[LOAD_ORDER_ANNOTATION, named] as const];
  if (source === undefined && own.length === 0) return undefined;
  return Object.fromEntries([...kept, ...own]);
}

async function convertLayers(
  { source, destination, manifest, config }: ManifestConversion,
  work: WorkDirectory,
  { format, formats, progress, stop }: ConvertOptions,
): Promise<ConvertedLayer[]> {
  const { layers } = manifest;
  const chain = chainIds(config.rootfs.diff_ids);
  const warn = (message: string) => progress.warning(message);
  const converter = new LayerConverter(work, format, formats, warn, stop.signal);
  const converted: ConvertedLayer[] = [];
  let sending: Promise<void> = Promise.resolve();
  try {
    for (const [i, layer] of layers.entries()) {
      const diffId = config.rootfs.diff_ids[i] as string;
      const onBytes = (bytes: number) => progress.bytesRead(bytes);
      const sourceLayer = { descriptor: layer, diffId, onBytes };
      const result = await unpackLayer(source, sourceLayer, (tar, label) =>
        converter.convert(tar, label, chain[i] as string),
      );
      await sending;
      const descriptor = descriptorOf(result);
      converted.push(result);
      const blob: ConvertedBlob = {
        sourceDigest: layer.digest,
        sourceBytes: layer.size,
        digest: result.digest,
        sizeBytes: result.sizeBytes,
      };
      progress.layerConverted(i + 1, blob);
      const done = (uploaded: boolean) => progress.layerDone(i + 1, blob, uploaded);
      sending = send(destination, descriptor, result.path, progress).then(done);
      sending.catch((error: unknown) => stop.abort(error));
    }
    await sending;
    return converted;
  } catch (error) {
    stop.abort(error);
    await sending.catch(() => {});
    // Not `error`: if the other side failed first, `error` is only the abort that followed.
    throw stop.signal.reason;
  } finally {
    converter.close();
  }
}

/** Whether the blob had to be sent. */
async function send(
  destination: ImageDestination,
  descriptor: Descriptor,
  path: string,
  progress: ConversionProgress,
): Promise<boolean> {
  if (await destination.hasBlob(descriptor)) return false;
  await destination.putBlob(descriptor, path, (bytes) => progress.bytesSent(bytes));
  return true;
}

function descriptorOf({ digest, sizeBytes, metadataBytes, hashTree }: ConvertedLayer): Descriptor {
  return {
    mediaType: OCI_LAYER_TAR,
    digest,
    size: sizeBytes,
    annotations: {
      [VERSION_ANNOTATION]: NATIVE_VERSION,
      [BLOB_DIGEST_ANNOTATION]: digest,
      [BLOB_SIZE_ANNOTATION]: String(sizeBytes),
      [BLOB_FS_TYPE_ANNOTATION]: 'ext4',
      [METADATA_BYTES_ANNOTATION]: String(metadataBytes),
      [HASH_TREE_ANNOTATION]: `${hashTree.root}@${hashTree.offset}`,
    },
  };
}

/** Translates the layers of an image, as recorded, to the image config for obd-blockd. */
import type { LowerLayer } from '../layers/lower-layer.js';
import { registryAddress } from '../registry/registry-hosts.js';
import type { MountableImage } from './image-mounts.js';
import { fillWanted } from './labels.js';
import { type Layer, remoteBlob } from './snapshot.js';
import type { Image } from './snapshot-stack.js';

/** @param filesOf - The directory of a snapshot's files, by its id. */
export function mountableImage(
  { top, layers }: Image,
  filesOf: (id: number) => string,
): MountableImage {
  const remotes = layers.flatMap(({ layer }) => remoteBlob(layer) ?? []);
  const repoBlobUrl = remotes.at(-1)?.repoBlobUrl ?? '';
  const lowers = layers.map(({ id, layer }) => lowerOf(layer, repoBlobUrl, filesOf(id)));
  const from = repoBlobUrl === '' ? '' : ` from ${repoBlobUrl.replace(/\/blobs$/, '')}`;
  const description = `the image with top layer "${top.name}" (${lowers.length} layers${from})`;
  const accelerationLayer = top.layer.type === 'trace';
  const enable = fillWanted(top.labels);
  const download = enable === undefined ? undefined : { enable };
  const config = { repoBlobUrl, lowers, accelerationLayer, ...(download && { download }) };
  return { id: top.id, config, description };
}

/**
 * A layer may have been pulled with another image, from another repository. If that is at another registry, the topmost
 * layer's repository has the layer too: the registry that first served a lower layer must not decide what other images show.
 * The config names only the file of an unpacked layer: obd-blockd must not read the blob from a registry if the file is lost.
 */
function lowerOf(layer: Layer, repoBlobUrl: string, files: string): LowerLayer {
  if (layer.type !== 'blocks' && layer.type !== 'trace') return {};
  const { digest, size, repoBlobUrl: own = repoBlobUrl, ...others } = layer.lower;
  if (layer.file !== undefined) return { ...others, file: `${files}/${layer.file}` };
  const isOwn = own !== repoBlobUrl && registryAddress(own) === registryAddress(repoBlobUrl);
  return { digest, size, ...(isOwn ? { repoBlobUrl: own } : {}), ...others };
}

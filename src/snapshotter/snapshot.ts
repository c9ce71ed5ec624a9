/**
 * A snapshot as the store records it, and the types of its layer.
 *
 *   active     a container's, or a layer being unpacked; writable; known by its key
 *   view       as active, but nothing can be written
 *   committed  a layer; can be a parent; known by its name
 *
 * A committed snapshot's parents are committed, and so is every parent.
 */
import * as z from 'zod';
import { lowerSchema } from '../layers/lower-layer.js';

export const KINDS = ['active', 'view', 'committed'] as const;
export type Kind = (typeof KINDS)[number];

export type Labels = Readonly<Record<string, string>>;

/** A layer of an image, as blocks of a virtual disk or as a trace of reads. */
const imageLayer = {
  /** As the image config names it to obd-blockd, unabridged: `digest`, `size`, `repoBlobUrl` and what its kind needs. */
  lower: lowerSchema,
  /** From the image's annotations, which may be wrong: mounting goes by the disk's superblock. Empty if unknown. */
  fileSystem: z.string(),
};
/** The one file in the snapshot's `fs` that containerd has unpacked the blob to. Without it, the layer is fetched on read. */
const unpackedFile = z
  .string()
  .regex(/^[^/\0]+$/)
  .optional();

export const layerSchema = z.discriminatedUnion('type', [
  /** Files, in the snapshot's own directory `fs`, as containerd's overlayfs snapshotter has them. */
  z.strictObject({
    type: z.literal('files'),
    /** Set on an active snapshot: its annotations say that containerd will unpack a trace in it. */
    announces: z.strictObject(imageLayer).optional(),
  }),
  z.strictObject({ type: z.literal('blocks'), ...imageLayer, file: unpackedFile }),
  /** It holds no blocks, and nothing is lost without it. */
  z.strictObject({ type: z.literal('trace'), ...imageLayer, file: unpackedFile }),
  /** For an active snapshot: containerd will unpack a blob in it, and then it becomes `blocks`. */
  z.strictObject({ type: z.literal('download'), ...imageLayer }),
]);

export type Layer = z.infer<typeof layerSchema>;
export type ImageLayer = Pick<Extract<Layer, { type: 'blocks' }>, 'lower' | 'fileSystem'>;

export interface Usage {
  readonly sizeBytes: number;
  readonly inodes: number;
}

export interface Snapshot {
  /** Names its directory and its device; never used twice. */
  readonly id: number;
  /** The key while it is active or a view. */
  readonly name: string;
  /** Name of the parent; empty if there is none. */
  readonly parent: string;
  readonly kind: Kind;
  readonly labels: Labels;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  /** As it was when committed. */
  readonly usage: Usage;
  readonly layer: Layer;
  /**
   * Committed: the proved chain ID, undefined if there is none. A fetched layer's is computed from its digest and its
   * parent's chain ID; containerd checked that of a layer it unpacked. Active: the chain ID that containerd announced
   * at Prepare. Never taken from labels, which clients can change.
   */
  readonly chainId: string | undefined;
  /** containerd's namespaces that have pulled this layer; unknown for records of earlier versions. */
  readonly namespaces: readonly string[];
}

/** A blob that is read from a registry. */
export interface RemoteBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  /** `https://host/v2/repository/blobs` */
  readonly repoBlobUrl: string;
}

/** The blob of a layer whose blocks are fetched on read; undefined for any other layer. */
export function remoteBlob(layer: Layer): RemoteBlob | undefined {
  if (layer.type !== 'blocks' || layer.file !== undefined) return undefined;
  const { digest, size: sizeBytes, repoBlobUrl } = layer.lower;
  return digest && sizeBytes && repoBlobUrl ? { digest, sizeBytes, repoBlobUrl } : undefined;
}

/** Whether the layer has no proved chain ID: true only of records of earlier versions. */
export function isUnproved({ layer, chainId }: Snapshot): boolean {
  return chainId === undefined && (layer.type === 'trace' || remoteBlob(layer) !== undefined);
}

/** Whether the layer is a part of an image that a device serves, and not files. */
export function isBlockLayer(layer: Layer): boolean {
  return layer.type !== 'files' && layer.type !== 'download';
}

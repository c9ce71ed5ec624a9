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

export const KINDS = ['active', 'view', 'committed'] as const;
export type Kind = (typeof KINDS)[number];

export type Labels = Readonly<Record<string, string>>;

const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);

/** From the image's annotations, which may be wrong: mounting goes by the disk's superblock. */
const annotatedFileSystem = z.string();

export const layerSchema = z.discriminatedUnion('type', [
  /** Files, in the snapshot's own directory `fs`, as containerd's overlayfs snapshotter has them. */
  z.strictObject({
    type: z.literal('files'),
    /** Set on an active snapshot: its annotations say that containerd will unpack a trace in it. */
    announcesTrace: z.literal(true).optional(),
  }),
  /** Blocks of a virtual disk, fetched from a registry on read. */
  z.strictObject({
    type: z.literal('remote'),
    digest,
    sizeBytes: z.int().positive(),
    /** `https://host/v2/repository/blobs` */
    repoBlobUrl: z.url(),
    fileSystem: annotatedFileSystem,
  }),
  /** Blocks of a virtual disk, all on this machine: containerd has unpacked the blob as `fs/overlaybd.commit`. */
  z.strictObject({ type: z.literal('local'), fileSystem: annotatedFileSystem }),
  /** A trace of accesses, unpacked by containerd. It holds no blocks, and nothing is lost without it. */
  z.strictObject({ type: z.literal('trace') }),
  /** For an active snapshot: containerd will unpack an overlaybd blob in it, and then it becomes `local`. */
  z.strictObject({ type: z.literal('download'), fileSystem: annotatedFileSystem }),
]);

export type Layer = z.infer<typeof layerSchema>;

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

/** Whether the layer has no proved chain ID: true only of records of earlier versions. */
export function isUnproved({ layer, chainId }: Snapshot): boolean {
  return (layer.type === 'remote' || layer.type === 'trace') && chainId === undefined;
}

/** Whether the layer is a part of a virtual disk, and not files. */
export function isBlockLayer(layer: Layer): boolean {
  return layer.type !== 'files' && layer.type !== 'download';
}

/**
 * What a snapshot is: a record of the store, and what its layer is made of.
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

/** As the image's annotations say, which may be wrong: what is mounted is what the disk's superblock says. */
const annotatedFileSystem = z.string();

export const layerSchema = z.discriminatedUnion('type', [
  /** Files, in the snapshot's own directory `fs`, as containerd's overlayfs snapshotter has them. */
  z.strictObject({
    type: z.literal('files'),
    /** Of an active snapshot: its annotations say that containerd is going to unpack a trace in it. */
    announcesTrace: z.literal(true).optional(),
  }),
  /** Blocks of a virtual disk, fetched from a registry when they are read. */
  z.strictObject({
    type: z.literal('remote'),
    digest,
    sizeBytes: z.int().positive(),
    /** `https://host/v2/repository/blobs` */
    repoBlobUrl: z.url(),
    fileSystem: annotatedFileSystem,
  }),
  /** Blocks of a virtual disk, all of them here: containerd has unpacked the blob as `fs/overlaybd.commit`. */
  z.strictObject({ type: z.literal('local'), fileSystem: annotatedFileSystem }),
  /** A trace of accesses, unpacked by containerd. It holds no blocks, and nothing is lost without it. */
  z.strictObject({ type: z.literal('trace') }),
  /** Of an active snapshot: containerd is going to unpack an overlaybd blob in it, and it will be `local`. */
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
   * Committed: the proved chain ID, undefined if there is none. A layer that is fetched has one by its digest and its
   * parent's; one that containerd unpacked has the one that containerd checked. Active: what containerd said at Prepare
   * that it is going to unpack. Never taken from labels, which clients can change.
   */
  readonly chainId: string | undefined;
  /** containerd's namespaces that have this layer by a pull of their own; unknown for records of earlier versions. */
  readonly namespaces: readonly string[];
}

/** Whether the layer may be something else than its chain ID says: only records of earlier versions are so. */
export function isUnproved({ layer, chainId }: Snapshot): boolean {
  return (layer.type === 'remote' || layer.type === 'trace') && chainId === undefined;
}

/** Whether the layer is a part of a virtual disk, and not files. */
export function isBlockLayer(layer: Layer): boolean {
  return layer.type !== 'files' && layer.type !== 'download';
}

/**
 * A kind of layer, and how to recognise it: one row of the table in layer-kinds.ts.
 *
 * This half of a row only describes. It loads no native code, so that the snapshotter, which opens no layer, needs none.
 * The other half opens layers: layer-format.ts.
 */
import type { LowerLayer } from './lower-layer.js';

/** Bytes of the head of a blob that recognise() may look at. */
export const HEAD_BYTES = 2048;

/** A layer's description in a manifest, or in containerd's labels. */
export interface LayerDescription {
  /** Undefined in labels, which do not have it. */
  readonly mediaType?: string | undefined;
  readonly digest?: string | undefined;
  /** Size of the blob in bytes; in labels only an annotation has it. */
  readonly size?: number | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** A layer of an image, as its kind understands its description. */
export interface DescribedLayer {
  readonly holds: LayerKind['holds'];
  /** The layer in an image config: at least `digest` and `size`, and `kind` if the blob's first bytes do not tell. */
  readonly lower: LowerLayer & { readonly digest: string; readonly size: number };
  /** As described, which may be wrong: mounting goes by the disk's superblock. */
  readonly fileSystem: string;
}

export interface LayerKind {
  /** Unique in its table: in messages, and as `kind` in an image config. */
  readonly name: string;
  /** `blocks` of the disk, or a `trace` of reads to repeat, without which only speed is lost. */
  readonly holds: 'blocks' | 'trace';
  /** The one file that containerd unpacks such a blob to; undefined for any name. */
  readonly unpackedName: string | undefined;
  /** Begin of the annotations of such layers, complete or not; undefined for a kind without annotations. */
  readonly annotationPrefix: string | undefined;

  /** Whether a description is of this kind, by media type and annotations. */
  isDescribedBy(description: LayerDescription): boolean;

  /**
   * @param description - One of this kind.
   * @throws {ObdError} `InvalidArgument` for a description that contradicts itself, `Unsupported` for a layer that
   *   this build cannot serve, naming the annotation.
   */
  describe(description: LayerDescription): DescribedLayer;

  /**
   * Whether a blob or an unpacked file is of this kind.
   *
   * @param head - Its first {@link HEAD_BYTES}, or all of a smaller one.
   * @param lower - What the image config says of it.
   */
  recognizes(head: Uint8Array, lower: LowerLayer): boolean;
}

/** Whether a layer is, or claims to be, of one of these kinds: a snapshotter that does not know them cannot use it. */
export function isMarked(kinds: readonly LayerKind[], description: LayerDescription): boolean {
  const keys = Object.keys(description.annotations ?? {});
  const isOf = ({ annotationPrefix: prefix }: LayerKind) =>
    prefix !== undefined && keys.some((key) => key.startsWith(prefix));
  return kinds.some((kind) => isOf(kind) || kind.isDescribedBy(description));
}

/**
 * The layer that a description is of, by the first kind that matches; undefined for a plain layer.
 *
 * @throws {ObdError} as LayerKind.describe().
 */
export function describeLayer(
  kinds: readonly LayerKind[],
  description: LayerDescription,
): DescribedLayer | undefined {
  return kinds.find((kind) => kind.isDescribedBy(description))?.describe(description);
}

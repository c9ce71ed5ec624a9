/** Opens a layer by the table of formats. */
import { createHash } from 'node:crypto';
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt, refetchWhileCorrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { Layer } from '../lsmt/layer.js';
import type { DecodedBlocks } from '../zfile/decoded-blocks.js';
import { HashTree } from '../zfile/hash-tree.js';
import type { LayerFormat, LayerOpening } from './layer-format.js';
import { HEAD_BYTES } from './layer-kind.js';
import type { LowerLayer } from './lower-layer.js';

export interface LayerDependencies {
  /** The kinds of layer to look for, LAYER_FORMATS in all programs. */
  readonly formats: readonly LayerFormat[];
  /** The cache that all files of this thread share. */
  readonly decoded: DecodedBlocks;
  /**
   * Puts a file above the decompressed file of a layer with a hash tree: it has the same bytes, and knows some of them already.
   * The new file owns the other.
   */
  readonly above?: ((digest: string, file: RandomAccessFile) => RandomAccessFile) | undefined;
}

/**
 * Opens a layer at once, without charging its memory to a budget.
 *
 * @param blob - The layer owns it; after an error it is closed.
 * @param lower - What an image config would say of it.
 * @throws {ObdError} `Corrupt` naming file, offset and rule, `Unsupported`, and read errors.
 */
export async function openLayer(
  blob: RandomAccessFile,
  dependencies: LayerDependencies,
  lower: LowerLayer = {},
): Promise<Layer> {
  const opening = await beginLayer(blob, lower, dependencies);
  try {
    await opening.loadTable();
    return await opening.loadIndex();
  } catch (error) {
    opening.close();
    throw error;
  }
}

/**
 * Recognises a layer and reads its headers. The head is read once, and fetched again while it is damaged. The hash tree of a
 * layer that has one is opened first, and proves the head.
 *
 * @param blob - The opening owns it; after an error it is closed.
 * @throws {ObdError} as openLayer(); `Unsupported` for a kind that has no row in the table.
 */
export async function beginLayer(
  blob: RandomAccessFile,
  lower: LowerLayer,
  { formats, decoded, above }: LayerDependencies,
): Promise<LayerOpening> {
  let opening: LayerOpening | undefined;
  try {
    const named = formatNamed(lower.kind, formats);
    const tree = lower.hashTree && (await HashTree.open(blob, lower.hashTree, decoded));
    const headBytes = Math.min(HEAD_BYTES, blob.sizeBytes);
    opening = await refetchWhileCorrupt(blob, 0, headBytes, async () => {
      const head = await readHead(blob);
      if (tree !== undefined && !isHeadOf(tree, head)) {
        throw corrupt(blob, 0, 'its headers are other ones than its hash tree proves');
      }
      const { begin, name } = named ?? recognized(blob, head, lower, formats);
      if (begin !== undefined) return begin(blob, { head, lower, decoded, tree, above });
      throw new ObdError(ErrorCodes.Unsupported, `a layer of kind "${name}" holds no blocks`);
    });
    await opening.loadHeaders();
    return opening;
  } catch (error) {
    (opening ?? blob).close();
    throw error;
  }
}

/** The first {@link HEAD_BYTES} of a blob, or all of a smaller one. @throws {ObdError} as readFully(). */
export async function readHead(blob: RandomAccessFile): Promise<Buffer> {
  const head = Buffer.alloc(Math.min(HEAD_BYTES, blob.sizeBytes));
  await readFully(blob, head, 0);
  return head;
}

function isHeadOf(tree: HashTree, head: Buffer): boolean {
  return createHash('sha256').update(head).digest().equals(tree.header.headHash);
}

/** Whether an image config's layer is no part of the disk. @throws {ObdError} `Unsupported` for an unknown kind. */
export function holdsNoBlocks({ kind }: LowerLayer, formats: readonly LayerFormat[]): boolean {
  return formatNamed(kind, formats)?.holds === 'trace';
}

function formatNamed(
  kind: string | undefined,
  formats: readonly LayerFormat[],
): LayerFormat | undefined {
  if (!kind) return undefined;
  const format = formats.find(({ name }) => name === kind);
  if (format !== undefined) return format;
  const known = formats.map(({ name }) => name).join(', ');
  throw new ObdError(
    ErrorCodes.Unsupported,
    `its kind is ${JSON.stringify(kind.slice(0, 100))}, and this build knows ${known}; update obd-blockd`,
  );
}

/** @throws {ObdError} `Corrupt` for a head of no known kind. */
function recognized(
  blob: RandomAccessFile,
  head: Buffer,
  lower: LowerLayer,
  formats: readonly LayerFormat[],
): LayerFormat {
  const found = formats.find((format) => format.recognizes(head, lower));
  if (found !== undefined) return found;
  const known = formats.map(({ name }) => name).join(', ');
  throw corrupt(
    blob,
    0,
    `neither its first bytes nor its tar's are of a known kind of layer (${known})`,
  );
}

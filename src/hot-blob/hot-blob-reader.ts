/**
 * Reads a hot blob as it arrives, and proves each page before it yields it (docs/formats/hot-blob.md).
 *
 * A page has the hash that a node of its layer's hash tree has for it, and that node was proved by those above it, up to the
 * root that the image's manifest names. So the sender of a blob can withhold pages, and cannot change any.
 *
 * Cost: 1 ms of this thread per MiB, in parts of at most 128 KiB; decompression is on another thread. Memory: the nodes
 * (at most 32 MiB), the index, and a few parts.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import { corrupt } from '../io/format-error.js';
import {
  HASH_BYTES,
  HASHES_PER_NODE,
  LEAF_BYTES,
  NODE_BYTES,
  parseTreeHeader,
  rootOf,
  TREE_HEADER_BYTES,
  TreeLayout,
} from '../zfile/hash-tree-layout.js';
import { firstWrongCrc, firstWrongLeaf } from '../zfile/leaf-hashes.js';
import { FrameBytes } from './frame-bytes.js';
import {
  HOT_HEAD_BYTES,
  type HotIndex,
  type HotLayer,
  hotIndexBytes,
  parseHotIndex,
} from './hot-index.js';
import { hotSteps } from './hot-steps.js';

/** Pages that are yielded at once: about 0.1 ms of hashing. */
const BATCH_PAGES = 32;

/** Proved pages of consecutive slots. */
export interface HotPages {
  /** Slot of the first page. */
  readonly slot: number;
  /** 4096 bytes of each. The receiver may keep them. The page of a short last leaf ends in zeroes. */
  readonly bytes: Buffer;
}

/**
 * Yields the index, then all pages in the order of their slots.
 *
 * @param pieces - The blob. Pieces must not change later.
 * @param layers - As the image's manifest names them.
 * @param label - Of the blob, for messages.
 * @throws {ObdError} `Corrupt` for a blob of other layers, and for bytes that are not proved; `Unsupported` for a later
 *   version; errors of `pieces`. Everything yielded before is proved.
 */
export async function* readHotBlob(
  pieces: AsyncIterable<Uint8Array>,
  layers: readonly { readonly digest: string; readonly root: string | undefined }[],
  label: string,
): AsyncGenerator<HotIndex | HotPages> {
  const file = { label };
  const content = new FrameBytes(pieces, file);
  try {
    const index = await readIndex(content, file);
    checkLayers(index, layers, file);
    yield index;
    yield* readPages(content, index, file);
    await content.readEnd();
  } finally {
    content.close();
  }
}

async function readIndex(content: FrameBytes, file: { label: string }): Promise<HotIndex> {
  const head = Buffer.alloc(HOT_HEAD_BYTES);
  await content.read(head);
  const bytes = Buffer.alloc(hotIndexBytes(head, file));
  head.copy(bytes);
  await content.read(bytes.subarray(HOT_HEAD_BYTES));
  return parseHotIndex(bytes, file);
}

function checkLayers(
  index: HotIndex,
  layers: readonly { readonly digest: string; readonly root: string | undefined }[],
  file: { label: string },
): void {
  for (const { digest, root } of index.layers) {
    const isNamed = layers.some((layer) => layer.digest === digest && layer.root === root);
    if (isNamed) continue;
    const rule = `pages of layer ${digest} with root ${root}, which the image does not name`;
    throw corrupt(file, HOT_HEAD_BYTES, rule);
  }
}

async function* readPages(
  content: FrameBytes,
  index: HotIndex,
  file: { label: string },
): AsyncGenerator<HotPages> {
  const proofs: LayerProof[] = [];
  let batch = Buffer.alloc(0);
  /** Pages of the batch that are proved, and how many will be. */
  let filled = 0;
  let wanted = 0;
  for (const step of hotSteps(index)) {
    if (step.kind === 'header') {
      proofs[step.layer] = await LayerProof.read(content, index.layers[step.layer]!, file);
      continue;
    }
    const proof = proofs[step.layer]!;
    if (step.kind === 'node') {
      await proof.readNode(content, step.level, step.node);
      continue;
    }
    for (let done = 0; done < step.count; ) {
      const slot = step.slot + done;
      if (filled === 0) {
        wanted = Math.min(BATCH_PAGES, index.pages - slot);
        batch = Buffer.allocUnsafeSlow(wanted * LEAF_BYTES);
      }
      const count = Math.min(step.count - done, wanted - filled);
      const pages = batch.subarray(filled * LEAF_BYTES, (filled + count) * LEAF_BYTES);
      await content.read(pages);
      proof.checkPages(pages, step.leaf + done, content.offset);
      checkCrcs(pages, index.crcs, slot, content.offset, file);
      done += count;
      filled += count;
      if (filled < wanted) continue;
      yield { slot: slot + count - wanted, bytes: batch };
      filled = 0;
    }
  }
}

function checkCrcs(
  pages: Buffer,
  crcs: Uint32Array,
  slot: number,
  offset: number,
  file: { label: string },
): void {
  const wrong = firstWrongCrc(pages, 0, pages.length, crcs, slot);
  if (wrong === -1) return;
  const rule = `page ${slot + wrong} has another CRC than the index says`;
  throw corrupt(file, offset - pages.length + wrong * LEAF_BYTES, rule);
}

/** The proved nodes of one layer's hash tree. */
class LayerProof {
  readonly #file: { readonly label: string };
  readonly #digest: string;
  readonly #leafedBytes: number;
  readonly #topHash: Buffer;
  /** Proved nodes by their numbers, bottom level first. */
  readonly #levels: readonly Map<number, Buffer>[];

  private constructor(
    file: { readonly label: string },
    digest: string,
    { leafedBytes, topHash }: { leafedBytes: number; topHash: Buffer },
  ) {
    this.#file = file;
    this.#digest = digest;
    this.#leafedBytes = leafedBytes;
    this.#topHash = topHash;
    this.#levels = new TreeLayout(leafedBytes).levels.map(() => new Map());
  }

  /** Reads the header of the tree, and proves it. @throws {ObdError} `Corrupt`, `Unsupported`. */
  static async read(
    content: FrameBytes,
    { digest, root, leafedBytes }: HotLayer,
    file: { readonly label: string },
  ): Promise<LayerProof> {
    const at = content.offset;
    const bytes = Buffer.alloc(TREE_HEADER_BYTES);
    await content.read(bytes);
    const found = rootOf(bytes);
    if (found !== root) {
      throw corrupt(
        file,
        at,
        `the root of layer ${digest} is ${found}, and the image names ${root}`,
      );
    }
    const header = parseTreeHeader(bytes);
    if (header === undefined) {
      throw new ObdError(
        ErrorCodes.Unsupported,
        `Cannot read ${file.label}: the hash tree of layer ${digest} has a form that this build does not know; update obd-blockd`,
        { path: file.label, digest },
      );
    }
    if (header.leafedBytes !== leafedBytes) {
      const proved = header.leafedBytes;
      throw corrupt(
        file,
        at,
        `${leafedBytes} bytes of layer ${digest}, and its tree has ${proved}`,
      );
    }
    return new LayerProof(file, digest, header);
  }

  /** @throws {ObdError} `Corrupt`. */
  async readNode(content: FrameBytes, level: number, node: number): Promise<void> {
    const at = content.offset;
    const bytes = Buffer.allocUnsafeSlow(NODE_BYTES);
    await content.read(bytes);
    const { hashes, hashesAt } = this.#hashesOf(level + 1, node);
    if (firstWrongLeaf(bytes, 0, NODE_BYTES, hashes, hashesAt) !== -1) {
      const rule = `node ${node} of level ${level} of the hash tree of layer ${this.#digest} is wrong`;
      throw corrupt(this.#file, at, rule);
    }
    this.#levels[level]!.set(node, bytes);
  }

  /**
   * Compares pages with the leaves from `leaf` on, all of one node.
   *
   * @param offset - Where the pages end in the content.
   * @throws {ObdError} `Corrupt`.
   */
  checkPages(pages: Buffer, leaf: number, offset: number): void {
    const bytes = Math.min(pages.length, this.#leafedBytes - leaf * LEAF_BYTES);
    const { hashes, hashesAt } = this.#hashesOf(0, leaf);
    const wrong = firstWrongLeaf(pages, 0, bytes, hashes, hashesAt);
    if (wrong !== -1) {
      const rule = `page ${leaf + wrong} of layer ${this.#digest} is not what its hash tree proves`;
      throw corrupt(this.#file, offset - pages.length + wrong * LEAF_BYTES, rule);
    }
    // No hash covers what follows the last leaf.
    if (pages.subarray(bytes).some((byte) => byte !== 0)) {
      const rule = `the last page of layer ${this.#digest} does not end in zeroes`;
      throw corrupt(this.#file, offset - pages.length + bytes, rule);
    }
  }

  /** Where the hash of node `i` of the level below `level` is; of leaf i for level 0. */
  #hashesOf(level: number, i: number): { readonly hashes: Buffer; readonly hashesAt: number } {
    if (level === this.#levels.length) return { hashes: this.#topHash, hashesAt: 0 };
    const hashes = this.#levels[level]!.get(Math.floor(i / HASHES_PER_NODE))!;
    return { hashes, hashesAt: (i % HASHES_PER_NODE) * HASH_BYTES };
  }
}

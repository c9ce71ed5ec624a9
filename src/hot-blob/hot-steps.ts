/**
 * The order of what a hot blob holds behind its index: docs/formats/hot-blob.md.
 *
 * Writer and reader both compute it from the index, so the stream holds raw bytes without a header for each record. The
 * first page of a layer follows the header of the layer's hash tree. A node of the tree is in front of the first page that
 * needs it, the top level first.
 */
import { HASHES_PER_NODE, TreeLayout } from '../zfile/hash-tree-layout.js';

/** The next bytes of the stream. */
export type HotStep =
  | { readonly kind: 'header'; readonly layer: number }
  | {
      readonly kind: 'node';
      readonly layer: number;
      /** 0 is the bottom level. */
      readonly level: number;
      readonly node: number;
    }
  | {
      readonly kind: 'pages';
      readonly layer: number;
      readonly leaf: number;
      /** All of them are leaves of one node. */
      readonly count: number;
      /** Slot of the first page. */
      readonly slot: number;
    };

/** @param runs - Triples: layer, first leaf, count. All are inside their layers. */
export function* hotSteps({
  layers,
  runs,
}: {
  readonly layers: readonly { readonly leafedBytes: number }[];
  readonly runs: Uint32Array;
}): Generator<HotStep> {
  /** By layer used so far, and by level: the nodes sent. */
  const sent: Set<number>[][] = [];
  let slot = 0;
  for (let run = 0; run < runs.length; run += 3) {
    const layer = runs[run]!;
    const end = runs[run + 1]! + runs[run + 2]!;
    let levels = sent[layer];
    if (levels === undefined) {
      levels = new TreeLayout(layers[layer]!.leafedBytes).levels.map(() => new Set());
      sent[layer] = levels;
      yield { kind: 'header', layer };
    }
    for (let leaf = runs[run + 1]!; leaf < end; ) {
      for (let level = levels.length - 1; level >= 0; level--) {
        const node = Math.floor(leaf / HASHES_PER_NODE ** (level + 1));
        if (levels[level]!.has(node)) continue;
        levels[level]!.add(node);
        yield { kind: 'node', layer, level, node };
      }
      const count = Math.min(end - leaf, HASHES_PER_NODE - (leaf % HASHES_PER_NODE));
      yield { kind: 'pages', layer, leaf, count, slot };
      leaf += count;
      slot += count;
    }
  }
}

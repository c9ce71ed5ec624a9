/** Where the pages of a hot blob are on the disk that an image's layers add up to, and which of them have come. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type HotPages, PAGE_BYTES, runAt } from '../hot-blob/hot-pages.js';
import type { RandomAccessFile } from '../io/random-access-file.js';

/** In place of a block: a layer above hides the page, or it is of no layer here. */
export const NO_BLOCK = 0xffff_ffff;

/** Pages of a layer that the disk shows in several places are looked at as often: no layer of obdconv has any. */
const LOOKS_PER_PAGE = 8;
/** How often it looks whether it is to end while no pages come. */
const LOOK_MS = 250;
/** Pages that arrive are passed on together. */
const PAUSE_MS = 20;

/** As LayerStack has it. */
export interface LayeredDisk {
  eachPartOf(
    files: readonly RandomAccessFile[],
    visit: (i: number, offset: number, fileOffset: number, length: number) => boolean,
  ): void;
}

/** A layer of the image. */
interface PagedLayer {
  readonly digest: string;
  /** As the disk reads it. */
  readonly file: RandomAccessFile;
}

/** The number of each page's block of 4 KiB, by slot. A page that is there twice has the first block. */
export function hotBlocks(
  disk: LayeredDisk,
  layers: readonly PagedLayer[],
  hot: Pick<HotPages, 'pages' | 'runsOf'>,
): Uint32Array {
  const blocks = new Uint32Array(hot.pages).fill(NO_BLOCK);
  const runsOf = layers.map(({ digest }) => hot.runsOf(digest));
  const files = layers.map(({ file }) => file);
  let looksLeft = LOOKS_PER_PAGE * hot.pages;
  disk.eachPartOf(files, (layer, offset, fileOffset, length) => {
    const runs = runsOf[layer];
    const shift = (offset - fileOffset) / PAGE_BYTES;
    // obdconv writes whole blocks; elsewhere no page is a block.
    if (runs === undefined || !Number.isInteger(shift)) return true;
    const first = Math.ceil(fileOffset / PAGE_BYTES);
    const end = Math.floor((fileOffset + length) / PAGE_BYTES);
    for (let i = Math.max(0, runAt(runs, first)); i < runs.leaves.length; i++) {
      const leaf: number = runs.leaves[i]!;
      if (leaf >= end) break;
      const to = Math.min(end, leaf + runs.counts[i]!);
      for (let each = Math.max(first, leaf); each < to; each++) {
        const slot = runs.slots[i]! + each - leaf;
        if (blocks[slot] === NO_BLOCK) blocks[slot] = shift + each;
        looksLeft--;
      }
    }
    return looksLeft > 0;
  });
  return blocks;
}

/** The blocks of pages as they come, in order of first use. @param blocks - As hotBlocks() gives them. */
export async function* arrivingBlocks(
  blocks: Uint32Array,
  hot: HotPages,
  signal: AbortSignal,
): AsyncGenerator<Uint32Array, void, undefined> {
  const { progress } = hot;
  for (let next = 0; next < blocks.length && !signal.aborted; ) {
    const { arrived, hasEnded } = progress;
    if (arrived > next) {
      const first = next;
      const isHere = (block: number, i: number) => block !== NO_BLOCK && hot.has(first + i);
      yield blocks.subarray(first, arrived).filter(isHere);
      next = arrived;
    } else if (hasEnded) return;
    else await progress.next(arrived, LOOK_MS);
    await sleep(PAUSE_MS, undefined, { ref: false });
  }
}

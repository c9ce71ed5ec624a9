/** Collects the pages and chunks of a load order, each at its first use, within the limits of a document. */
import { CHUNKS_MAX, PAGES_MAX, type PageRun, placeIn } from './load-order.js';

export class FirstUses {
  readonly #runs: PageRun[] = [];
  readonly #pages = new Set<number>();
  readonly #chunks: number[] = [];
  readonly #knownChunks = new Set<number>();

  get runs(): readonly PageRun[] {
    return this.#runs;
  }

  /** As LoadOrder has them. */
  get chunks(): Uint32Array {
    return Uint32Array.from(this.#chunks);
  }

  get pageCount(): number {
    return this.#pages.size;
  }

  get hasAllChunks(): boolean {
    return this.#knownChunks.size >= CHUNKS_MAX;
  }

  get isFull(): boolean {
    return this.#pages.size >= PAGES_MAX && this.hasAllChunks;
  }

  /**
   * Adds the pages of a run that are new, as far as there is room.
   *
   * @returns Whether any was new, or found no room.
   */
  addPages({ layer, leaf, count, ms, starts }: PageRun): boolean {
    let isNew = false;
    for (let page = leaf; page < leaf + count; page++) {
      const place = placeIn(layer, page);
      if (this.#pages.has(place)) continue;
      isNew = true;
      if (this.#pages.size >= PAGES_MAX) break;
      this.#pages.add(place);
      this.#append(layer, page, ms, starts);
    }
    return isNew;
  }

  addChunk(layer: number, chunk: number): void {
    const place = placeIn(layer, chunk);
    if (this.#knownChunks.size >= CHUNKS_MAX || this.#knownChunks.has(place)) return;
    this.#knownChunks.add(place);
    this.#chunks.push(layer, chunk);
  }

  #append(layer: number, leaf: number, ms: number, starts: number): void {
    const last = this.#runs.at(-1);
    const joins =
      last?.layer === layer &&
      last.leaf + last.count === leaf &&
      last.ms === ms &&
      last.starts === starts;
    if (joins) this.#runs[this.#runs.length - 1] = { ...last, count: last.count + 1 };
    else this.#runs.push({ layer, leaf, count: 1, ms, starts });
  }
}

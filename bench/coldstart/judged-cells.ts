/** The measured starts as aims compare them: by image, link and way. */
import type { Measured } from './cell.js';
import { LINKS, type LinkMeasure, pullAnswersSeconds } from './link.js';
import type { CellResult, Limit } from './plan.js';
import type { Reference } from './reference.js';
import { medianOf, type Summary } from './summary.js';

export interface MeasuredCells {
  readonly summaries: readonly Summary[];
  readonly results: readonly CellResult[];
  readonly links: Readonly<Record<string, LinkMeasure>>;
  readonly limits: readonly Limit[];
  readonly references: Readonly<Record<string, Pick<Reference, 'zstdBytes'>>>;
}

/** Values of a cell or a peer that was not run are undefined. */
export class JudgedCells {
  readonly #cells: MeasuredCells;

  constructor(cells: MeasuredCells) {
    this.#cells = cells;
  }

  at(image: string, link: string, way: string): Measured | undefined {
    const { summaries } = this.#cells;
    return summaries.find((each) => each.image === image && each.link === link && each.way === way)
      ?.median;
  }

  /** Pulled by containerd, as the peers are, where it can. */
  ours(image: string, link: string): Measured | undefined {
    return this.at(image, link, 'obd-ctr') ?? this.at(image, link, 'obd');
  }

  /**
   * The fewest seconds to ready.
   *
   * @param needed - Undefined without all of these: an absent one may have been the fastest.
   */
  fastest(image: string, link: string, ways: readonly string[], needed = ways): number | undefined {
    const secondsOf = (way: string) => this.at(image, link, way)?.ready;
    if (needed.some((way) => secondsOf(way) === undefined)) return undefined;
    return Math.min(...ways.flatMap((way) => secondsOf(way) ?? []));
  }

  /** Of these images, each with each link that it was started on. */
  pairs(images: readonly string[]): (readonly [image: string, link: string])[] {
    const { summaries } = this.#cells;
    return LINKS.flatMap(({ name }) =>
      images
        .filter((image) => summaries.some((each) => each.image === image && each.link === name))
        .map((image) => [image, name] as const),
    );
  }

  /** To ready, by the limit of the image. */
  toLimit(image: string, link: string, way: string): number | undefined {
    const measured = this.at(image, link, way);
    const limit = this.#cells.limits.find((each) => each.image === image && each.link === link);
    return ratio(measured?.ready, limit && limit.networkSeconds + (measured?.warm ?? Number.NaN));
  }

  /** To ready, by the same limit for the bytes of the load order's chunks. */
  toOrderLimit(image: string, link: string, way: string): number | undefined {
    const { advice, ready, warm = Number.NaN } = this.at(image, link, way) ?? {};
    const measure = this.#cells.links[link];
    const bytes = advice?.orderSeconds;
    if (bytes === undefined || measure === undefined) return undefined;
    return ratio(ready, bytes + pullAnswersSeconds(measure) + warm);
  }

  /** The size of the hot blob, by that of the touched pages as one zstd stream. */
  toStream(image: string, { advice }: Pick<Measured, 'advice'>): number | undefined {
    return ratio(advice?.hotBytes, this.#cells.references[image]?.zstdBytes);
  }

  /** The median of what each round's start of one way took, by that of another way in the same round. */
  pairedRatio(image: string, link: string, way: string, by: string): number | undefined {
    const starts = this.#cells.results.filter(
      (each) => each.image === image && each.link === link && each.measured !== undefined,
    );
    const ratios = starts.flatMap((start) => {
      if (start.way !== way) return [];
      const other = starts.find((each) => each.way === by && each.round === start.round);
      return ratio(start.measured?.ready, other?.measured?.ready) ?? [];
    });
    return ratios.length === 0 ? undefined : medianOf(ratios);
  }
}

export function ratio(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a / b;
}

/** Combines the results of several runs of one measurement. */
export interface Sample {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

export function sampleOf(values: readonly number[]): Sample {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (i: number) => Number((sorted[i] ?? Number.NaN).toPrecision(4));
  return { median: at(sorted.length >> 1), lowest: at(0), highest: at(sorted.length - 1) };
}

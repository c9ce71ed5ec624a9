/** Which numbers a new NBD device may get. */

/** The minor numbers of a major one. */
const MINORS = 1 << 20;

/**
 * The lowest numbers that no device has, without those that the module itself makes, as it is loaded.
 * @param partitionsMax - The module says 2^n - 1: a device takes 2^n minor numbers.
 */
export function unusedIndexes(
  used: ReadonlySet<number>,
  nbdsMax: number,
  partitionsMax: number,
  countMax: number,
): number[] {
  const end = Math.floor(MINORS / (partitionsMax + 1));
  const unused: number[] = [];
  for (let index = nbdsMax; index < end && unused.length < countMax; index++) {
    if (!used.has(index)) unused.push(index);
  }
  return unused;
}

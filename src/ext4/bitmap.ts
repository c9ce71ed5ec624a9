/**
 * Runs of bits in a bitmap block, least significant bit first, as ext4 has them.
 *
 * Whole bytes are stepped over at once: a search through a full or an empty bitmap costs 4096 steps.
 */

export function isSet(bits: Uint8Array, bit: number): boolean {
  return ((bits[bit >>> 3] as number) & (1 << (bit & 7))) !== 0;
}

/** The first clear bit in [from, end), or `end`. */
export function nextClear(bits: Uint8Array, from: number, end: number): number {
  return next(bits, from, end, 0xff);
}

/** The first set bit in [from, end), or `end`. */
export function nextSet(bits: Uint8Array, from: number, end: number): number {
  return next(bits, from, end, 0);
}

/** The last set bit below `end`, or -1. */
export function lastSet(bits: Uint8Array, end: number): number {
  for (let bit = end - 1; bit >= 0; bit--) {
    if ((bit & 7) === 7 && bits[bit >>> 3] === 0) bit -= 7;
    else if (isSet(bits, bit)) return bit;
  }
  return -1;
}

export function setRun(bits: Uint8Array, from: number, end: number): void {
  for (let bit = from; bit < end; bit++) {
    if ((bit & 7) === 0 && bit + 8 <= end) {
      bits[bit >>> 3] = 0xff;
      bit += 7;
    } else bits[bit >>> 3] = (bits[bit >>> 3] as number) | (1 << (bit & 7));
  }
}

export function clearRun(bits: Uint8Array, from: number, end: number): void {
  for (let bit = from; bit < end; bit++) {
    if ((bit & 7) === 0 && bit + 8 <= end) {
      bits[bit >>> 3] = 0;
      bit += 7;
    } else bits[bit >>> 3] = (bits[bit >>> 3] as number) & ~(1 << (bit & 7));
  }
}

/** `skipped` is the byte that holds nothing of interest: all set, or all clear. */
function next(bits: Uint8Array, from: number, end: number, skipped: 0 | 0xff): number {
  for (let bit = from; bit < end; bit++) {
    if ((bit & 7) === 0 && bits[bit >>> 3] === skipped) bit += 7;
    else if (isSet(bits, bit) === (skipped === 0)) return bit;
  }
  return end;
}

/**
 * CRC-32C in the convention of ZFile and gzip.meta: the state starts at the seed, and nothing is
 * inverted. A usual library inverts the state before and after, hence raw(b, s) = ~crc32c(b, ~s).
 */
import { crc32c } from '@node-rs/crc32';

/** @param seed - 0 for headers and indexes; a running CRC to continue one. Unsigned 32 bits. */
export function rawCrc32c(bytes: Uint8Array, seed: number): number {
  return ~crc32c(bytes, ~seed >>> 0) >>> 0;
}

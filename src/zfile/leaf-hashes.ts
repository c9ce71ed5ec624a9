/**
 * SHA-256 and CRC-32C of leaves of 4 KiB, in batches: one call of the native add-on for a run, without an allocation.
 *
 * Cost: 0.8 ms per MiB on a processor with SHA instructions; hash() of node:crypto takes 1.8 ms, because it allocates for
 * each leaf. docs/adr/0013-hash-tree.md says how measured.
 */
import { loadNativeAddon } from '../io/native-addon.js';

interface Addon {
  hashLeaves(
    source: Uint8Array,
    at: number,
    bytes: number,
    hashes: Uint8Array,
    hashesAt: number,
  ): void;
  firstWrongLeaf(
    source: Uint8Array,
    at: number,
    bytes: number,
    hashes: Uint8Array,
    hashesAt: number,
  ): number;
  firstWrongCrc(
    source: Uint8Array,
    at: number,
    bytes: number,
    crcs: Uint32Array,
    crcsAt: number,
  ): number;
}

const addon = loadNativeAddon('zfile-codec', 'zfile_codec') as Addon;

/** Stores the hash of each leaf of source[at, at + bytes), the last of which may be short, from hashes[hashesAt] on. */
export function hashLeaves(
  source: Uint8Array,
  at: number,
  bytes: number,
  hashes: Uint8Array,
  hashesAt: number,
): void {
  addon.hashLeaves(source, at, bytes, hashes, hashesAt);
}

/** The number of the first leaf of source[at, at + bytes) that has another hash than hashes[hashesAt] on; -1 for none. */
export function firstWrongLeaf(
  source: Uint8Array,
  at: number,
  bytes: number,
  hashes: Uint8Array,
  hashesAt: number,
): number {
  return addon.firstWrongLeaf(source, at, bytes, hashes, hashesAt);
}

/**
 * The number of the first leaf of source[at, at + bytes), all of them whole, that has another CRC-32C than crcs[crcsAt] on; -1 for
 * none. The CRC is rawCrc32c() with seed 0.
 */
export function firstWrongCrc(
  source: Uint8Array,
  at: number,
  bytes: number,
  crcs: Uint32Array,
  crcsAt: number,
): number {
  return addon.firstWrongCrc(source, at, bytes, crcs, crcsAt);
}

/**
 * The parts of a sparse file that are in the archive; the rest are holes.
 *
 * GNU tar has four forms of it (GNU tar manual, "Storing Sparse Files"): the old header type `S` with four entries in
 * the header and 21 in each extension block, pax 0.0 (repeated records), pax 0.1 (one record with commas) and pax 1.0
 * (decimal lines in front of the content). This class represents all of them.
 *
 * Invariants, checked in the constructor: extents ascend, do not overlap, end within the file, and their lengths add up
 * to the bytes that the archive stores.
 */
import { TAR_BLOCK_BYTES } from '../io/block-sizes.js';
import { HeaderProblem, natural } from './header-block.js';
import { type PaxRecords, parseNatural } from './pax-records.js';

/** A map of this many extents takes 16 MiB here; GNU tar writes one per run of 512-byte blocks. */
const SPARSE_EXTENTS_MAX = 1 << 20;

const ENTRY_BYTES = 24;
const HEADER_ENTRIES_AT = 386;
const HEADER_ENTRIES = 4;
const EXTENSION_ENTRIES = 21;

export class SparseMap {
  readonly sizeBytes: number;
  readonly #offsets: readonly number[];
  readonly #lengths: readonly number[];

  /** @param pairs - Offset and length of each extent, alternating. @throws {HeaderProblem} */
  constructor(pairs: readonly number[], sizeBytes: number, storedBytes: number) {
    if (pairs.length % 2 !== 0) throw new HeaderProblem('the sparse map ends in half an entry');
    const offsets: number[] = [];
    const lengths: number[] = [];
    let end = 0;
    let total = 0;
    for (let i = 0; i < pairs.length; i += 2) {
      const offset = pairs[i] as number;
      const length = pairs[i + 1] as number;
      if (offset < end || length > sizeBytes - offset) {
        throw new HeaderProblem(
          `extent ${i / 2} of the sparse map, ${length} bytes at ${offset}, does not fit between ${end} and ${sizeBytes}`,
        );
      }
      end = offset + length;
      total += length;
      offsets.push(offset);
      lengths.push(length);
    }
    if (total !== storedBytes) {
      throw new HeaderProblem(`the sparse map covers ${total} bytes and ${storedBytes} are stored`);
    }
    this.sizeBytes = sizeBytes;
    this.#offsets = offsets;
    this.#lengths = lengths;
  }

  /** Hole and data lengths in turn, a hole first; zero lengths are left out by the reader. */
  *runs(): Generator<{ readonly holeBytes: number; readonly dataBytes: number }> {
    let at = 0;
    for (let i = 0; i < this.#offsets.length; i++) {
      const offset = this.#offsets[i] as number;
      const dataBytes = this.#lengths[i] as number;
      yield { holeBytes: offset - at, dataBytes };
      at = offset + dataBytes;
    }
    yield { holeBytes: this.sizeBytes - at, dataBytes: 0 };
  }
}

/** Entries of an old GNU header (type `S`). `extended` says that an extension block follows. */
export function oldGnuEntries(header: Uint8Array): { pairs: number[]; extended: boolean } {
  const pairs = entriesOf(header, HEADER_ENTRIES_AT, HEADER_ENTRIES);
  return { pairs, extended: header[482] !== 0 };
}

export function oldGnuExtension(block: Uint8Array): { pairs: number[]; extended: boolean } {
  return { pairs: entriesOf(block, 0, EXTENSION_ENTRIES), extended: block[504] !== 0 };
}

export function oldGnuSize(header: Uint8Array): number {
  return natural(header, 483, 12, 'real size');
}

/** An entry whose first byte is NUL ends the list. */
function entriesOf(block: Uint8Array, at: number, count: number): number[] {
  const pairs: number[] = [];
  for (let i = 0; i < count; i++) {
    const entry = at + i * ENTRY_BYTES;
    if (block[entry] === 0) break;
    pairs.push(natural(block, entry, 12, 'sparse offset'));
    pairs.push(natural(block, entry + 12, 12, 'sparse length'));
  }
  return pairs;
}

/** The map of pax formats 0.0 and 0.1, or undefined if the records carry none. */
export function paxPairs(pax: PaxRecords): readonly number[] | undefined {
  const map = pax.text('GNU.sparse.map');
  const pairs =
    map === undefined ? pax.sparsePairs : map.split(',').map((n) => parseNatural(n, 'sparse map'));
  if (map === undefined && pairs.length === 0) return undefined;
  const declared = pax.natural('GNU.sparse.numblocks');
  if (declared !== undefined && declared !== pairs.length / 2) {
    throw new HeaderProblem(`the sparse map has ${pairs.length / 2} extents, not ${declared}`);
  }
  return pairs;
}

/** Parses the decimal lines of pax format 1.0, block by block, as the reader fetches them. */
export class Pax1Map {
  readonly pairs: number[] = [];
  #expected: number | undefined;
  #digits = '';

  /** True once the map is complete; the rest of the block is padding. @throws {HeaderProblem} */
  add(block: Uint8Array): boolean {
    for (let i = 0; i < TAR_BLOCK_BYTES && !this.#complete(); i++) {
      const byte = block[i] as number;
      if (byte !== 0x0a) {
        this.#digits += String.fromCharCode(byte);
        if (this.#digits.length > 16) throw new HeaderProblem('a sparse map line is too long');
        continue;
      }
      const value = parseNatural(this.#digits, 'a sparse map line');
      this.#digits = '';
      if (this.#expected === undefined) this.#expected = checkedCount(value);
      else this.pairs.push(value);
    }
    return this.#complete();
  }

  #complete(): boolean {
    return this.#expected !== undefined && this.pairs.length === this.#expected * 2;
  }
}

/** @throws {HeaderProblem} */
export function checkedCount(extents: number): number {
  if (extents <= SPARSE_EXTENTS_MAX) return extents;
  throw new HeaderProblem(`the sparse map has ${extents} extents, more than ${SPARSE_EXTENTS_MAX}`);
}

/**
 * Which chunks of a blob are cached: one bit each, chunk c being bit c % 8 of byte c / 8, as on disk.
 *
 * A chunk is 64 KiB. Starting a Python web application from a blob of 106 MB, the cache fetches (of the
 * blob, in so many requests; 13.5 % is what the kernel asks for):
 *
 *     chunks of   16 KiB   32 KiB   64 KiB   128 KiB   256 KiB
 *                 15.5 %   16.7 %   18.4 %   21.3 %    25.0 %
 *                 351      298      242      167       99
 *
 * A request is for more than a chunk (fetch-window.ts): the chunk is what is counted, evicted and waited for.
 *
 * The set is in shared memory, so that every thread reads and changes it directly:
 *
 *   u32 count | u32 generation | u32 fetched | u32 read | u32 per chunk: version
 *   a bit per chunk: stored | ... used lately | ... opening | ... unread
 *
 * A change of a stored bit is atomic, and the thread that changed it updates the count. A bit is set after its bytes
 * have been written. has() is a plain load, so it may miss a concurrent update.
 *
 * Evicting a chunk from a file that other threads read needs more than its bit, since a reader may have seen the bit
 * before and read the hole after. The order is:
 *
 *   evictor   clear bits; increment the generation; save the bitmap to the disk; punch the hole
 *   reader    load the generation; check bits; read; load the generation again, and start over if it has changed
 *
 * A reader that loads the same generation twice has checked its bits before the evictor cleared the bit of a later hole,
 * and has read before that hole was punched. The fdatasync of the bitmap lies between the two, and takes longer than any
 * delay before one processor sees another's store. A chunk is stored again only after its hole has been punched
 * (blob-file.ts).
 *
 * The used bits are hints, written without atomic operations: a lost one costs a suboptimal eviction.
 *
 * An unread chunk was fetched and not read since. Readers clear the bit, so that the cache's thread sees how far they are in
 * what was fetched ahead of them, at no cost for any further read of the chunk.
 *
 * Each chunk has a version, which tells a reader whether it has checked these bytes before. It changes before the bytes of
 * a chunk are written and again after, while the chunk is not in the set. So a reader that loads the same version before
 * and after a read of a chunk in the set has read that version's bytes, all of them.
 *
 * An opening chunk is one that a reader needed while its image was opened: stored or not, it keeps the bit until the blob
 * is closed. Eviction takes opening chunks last (eviction.ts).
 */

const HEADER_BYTES = 16;
const VERSION_BYTES = 4;
const PLANES = 4;
/** Indexes of the header. */
const FETCHED = 2;
const READ = 3;

export class ChunkSet {
  /** How many chunks the blob has. */
  readonly chunks: number;
  /** Another thread constructs the same set from it. */
  readonly memory: SharedArrayBuffer;
  readonly bits: Uint8Array;
  readonly #used: Uint8Array;
  readonly #opening: Uint8Array;
  readonly #unread: Uint8Array;
  readonly #header: Int32Array;
  readonly #versions: Int32Array;

  /** @param memory - Of another set of as many chunks, to share it; by default the set is new and empty. */
  constructor(chunks: number, memory = new SharedArrayBuffer(ChunkSet.memoryBytes(chunks))) {
    const bitBytes = Math.ceil(chunks / 8);
    const plane = (i: number) => {
      const at = HEADER_BYTES + chunks * VERSION_BYTES + i * bitBytes;
      return new Uint8Array(memory, at, bitBytes);
    };
    this.chunks = chunks;
    this.memory = memory;
    this.bits = plane(0);
    this.#used = plane(1);
    this.#opening = plane(2);
    this.#unread = plane(3);
    this.#header = new Int32Array(memory, 0, HEADER_BYTES / 4);
    this.#versions = new Int32Array(memory, HEADER_BYTES, chunks);
  }

  /** Memory of a set of so many chunks. */
  static memoryBytes(chunks: number): number {
    return HEADER_BYTES + chunks * VERSION_BYTES + PLANES * Math.ceil(chunks / 8);
  }

  /** How many chunks are in the set. */
  get count(): number {
    return Atomics.load(this.#header, 0);
  }

  /** Changes before chunks that were in the set become holes. */
  get generation(): number {
    return Atomics.load(this.#header, 1);
  }

  /** Call it after clearing the bits of chunks to evict, and before punching their holes. */
  nextGeneration(): void {
    Atomics.add(this.#header, 1, 1);
  }

  /** Call it before the bytes of chunks [first, end) are written, and again before the chunks are in the set. */
  nextVersion(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) Atomics.add(this.#versions, chunk, 1);
  }

  /** A number that only these bytes of the chunk have; 0 if it is not in the set. */
  versionOf(chunk: number): number {
    return this.has(chunk) ? Atomics.load(this.#versions, chunk) + 1 : 0;
  }

  /** Marks chunks [first, end) as used lately. */
  touch(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) {
      const bit = 1 << (chunk & 7);
      // Checked first, so that threads that read the same chunks do not take the cache line from each other.
      if ((this.#used[chunk >>> 3]! & bit) === 0) this.#used[chunk >>> 3]! |= bit;
    }
  }

  /** A reader has read chunks [first, end). */
  read(first: number, end: number): void {
    this.touch(first, end);
    for (let chunk = first; chunk < end; chunk++) {
      const bit = 1 << (chunk & 7);
      if ((this.#unread[chunk >>> 3]! & bit) === 0) continue;
      const before = Atomics.and(this.#unread, chunk >>> 3, ~bit);
      if ((before & bit) !== 0) Atomics.add(this.#header, READ, 1);
    }
  }

  /** Chunks [first, end) have been fetched. Call it before they are in the set. */
  fetched(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) {
      const bit = 1 << (chunk & 7);
      const before = Atomics.or(this.#unread, chunk >>> 3, bit);
      if ((before & bit) === 0) Atomics.add(this.#header, FETCHED, 1);
    }
  }

  /** Whether the chunk is in the set, and was read since it was fetched. */
  isRead(chunk: number): boolean {
    return this.has(chunk) && ((this.#unread[chunk >>> 3]! >>> (chunk & 7)) & 1) === 0;
  }

  /** How many chunks were fetched since the blob was opened. */
  get fetchedCount(): number {
    return Atomics.load(this.#header, FETCHED);
  }

  /** How many of them were read. */
  get readCount(): number {
    return Atomics.load(this.#header, READ);
  }

  /** @returns Whether the chunk was used since the last call for it. */
  takeUsed(chunk: number): boolean {
    const bit = 1 << (chunk & 7);
    const used = (this.#used[chunk >>> 3]! & bit) !== 0;
    if (used) this.#used[chunk >>> 3]! &= ~bit;
    return used;
  }

  /** Marks chunks [first, end) as opening chunks. */
  markOpening(first: number, end: number): void {
    for (let chunk = first; chunk < end; chunk++) {
      Atomics.or(this.#opening, chunk >>> 3, 1 << (chunk & 7));
    }
  }

  isOpening(chunk: number): boolean {
    return ((this.#opening[chunk >>> 3]! >>> (chunk & 7)) & 1) === 1;
  }

  /** Whether chunks other than opening chunks and chunk 0 are in the set. */
  hasOrdinary(): boolean {
    for (let i = 0; i < this.bits.length; i++) {
      const ordinary = this.bits[i]! & ~this.#opening[i]!;
      if ((i === 0 ? ordinary & ~1 : ordinary) !== 0) return true;
    }
    return false;
  }

  has(chunk: number): boolean {
    return ((this.bits[chunk >>> 3]! >>> (chunk & 7)) & 1) === 1;
  }

  /** Whether all of [first, end) are in the set. */
  hasAll(first: number, end: number): boolean {
    for (let chunk = first; chunk < end; chunk++) if (!this.has(chunk)) return false;
    return true;
  }

  add(chunk: number): void {
    const bit = 1 << (chunk & 7);
    const before = Atomics.or(this.bits, chunk >>> 3, bit);
    if ((before & bit) === 0) Atomics.add(this.#header, 0, 1);
  }

  /** @returns Whether it was in the set. */
  delete(chunk: number): boolean {
    const bit = 1 << (chunk & 7);
    return this.#keepOf(chunk >>> 3, ~bit) === 1;
  }

  /** Removes chunks that are not in `bits`. */
  intersect(bits: Uint8Array): void {
    for (let i = 0; i < this.bits.length; i++) this.#keepOf(i, bits[i]!);
  }

  /**
   * Call it only while no other thread has the set.
   * @returns False, leaving the set unchanged, if a bit past the last chunk is set.
   */
  assign(bits: Uint8Array): boolean {
    const used = this.chunks & 7;
    if (used !== 0 && bits[bits.length - 1]! >>> used !== 0) return false;
    this.bits.set(bits);
    let count = 0;
    for (const byte of bits) count += bitsOf(byte);
    Atomics.store(this.#header, 0, count);
    return true;
  }

  /** Clears the bits of a byte that are not in `mask`. @returns How many of them were set. */
  #keepOf(byte: number, mask: number): number {
    const cleared = bitsOf(Atomics.and(this.bits, byte, mask) & ~mask & 0xff);
    if (cleared > 0) Atomics.sub(this.#header, 0, cleared);
    return cleared;
  }
}

function bitsOf(byte: number): number {
  let count = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
  return count;
}

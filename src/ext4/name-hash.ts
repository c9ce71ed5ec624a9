/**
 * The hash that orders a directory's index: half of MD4 over the name, 32 bytes at a time.
 *
 * The lowest bit is always clear: in an index it says that names of the same hash continue from the previous block.
 * Names are hashed as unsigned bytes or as signed ones; the superblock says which.
 */
const DEFAULT_SEED = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] as const;
const CHUNK_BYTES = 32;
const CHUNK_WORDS = CHUNK_BYTES / 4;
const ROUND_2 = 0x5a82_7999;
const ROUND_3 = 0x6ed9_eba1;
/** Marks the end for readers that list a directory in the order of its hashes. */
const END_OF_HASHES = 0xffff_fffe;

type Words = [number, number, number, number];

export class NameHash {
  readonly #seed: Words;
  readonly #isUnsigned: boolean;
  readonly #chunk = new Int32Array(CHUNK_WORDS);

  /** @param seed - 16 bytes; zeroes stand for MD4's own. */
  constructor(seed: Buffer, isUnsigned: boolean) {
    const words = [0, 4, 8, 12].map((at) => seed.readUInt32LE(at));
    this.#seed = (words.some(Boolean) ? words : [...DEFAULT_SEED]) as Words;
    this.#isUnsigned = isUnsigned;
  }

  of(name: Uint8Array): number {
    const state: Words = [...this.#seed];
    for (let at = 0; at < name.length; at += CHUNK_BYTES) {
      this.#fillChunk(name, at);
      transform(state, this.#chunk);
    }
    const hash = (state[1] & ~1) >>> 0;
    return hash === END_OF_HASHES ? hash - 2 : hash;
  }

  /** The next words of the name; behind its end, bytes that hold the length of the rest. */
  #fillChunk(name: Uint8Array, from: number): void {
    const left = name.length - from;
    const padding = left | (left << 8) | (left << 16) | (left << 24);
    for (let word = 0; word < CHUNK_WORDS; word++) {
      let value = padding;
      const end = Math.min(name.length, from + word * 4 + 4);
      for (let at = from + word * 4; at < end; at++) {
        const byte = name[at] as number;
        value = ((value << 8) + (this.#isUnsigned || byte < 128 ? byte : byte - 256)) | 0;
      }
      this.#chunk[word] = value;
    }
  }
}

/** Three rounds of eight steps; a, d, c and b take turns to be mixed with the others. */
function transform(state: Words, chunk: Int32Array): void {
  let [a, b, c, d] = state;
  for (let i = 0; i < 8; i += 4) {
    a = rotate(a + (d ^ (b & (c ^ d))) + word(chunk, i), 3);
    d = rotate(d + (c ^ (a & (b ^ c))) + word(chunk, i + 1), 7);
    c = rotate(c + (b ^ (d & (a ^ b))) + word(chunk, i + 2), 11);
    b = rotate(b + (a ^ (c & (d ^ a))) + word(chunk, i + 3), 19);
  }
  for (let i = 1; i >= 0; i--) {
    a = rotate(a + majority(b, c, d) + word(chunk, i) + ROUND_2, 3);
    d = rotate(d + majority(a, b, c) + word(chunk, i + 2) + ROUND_2, 5);
    c = rotate(c + majority(d, a, b) + word(chunk, i + 4) + ROUND_2, 9);
    b = rotate(b + majority(c, d, a) + word(chunk, i + 6) + ROUND_2, 13);
  }
  for (let i = 3; i >= 0; i -= 2) {
    a = rotate(a + (b ^ c ^ d) + word(chunk, i) + ROUND_3, 3);
    d = rotate(d + (a ^ b ^ c) + word(chunk, i + 4) + ROUND_3, 9);
    c = rotate(c + (d ^ a ^ b) + word(chunk, i - 1) + ROUND_3, 11);
    b = rotate(b + (c ^ d ^ a) + word(chunk, i + 3) + ROUND_3, 15);
  }
  state[0] = (state[0] + a) | 0;
  state[1] = (state[1] + b) | 0;
  state[2] = (state[2] + c) | 0;
  state[3] = (state[3] + d) | 0;
}

function majority(x: number, y: number, z: number): number {
  return (x & y) + ((x ^ y) & z);
}

function word(chunk: Int32Array, index: number): number {
  return chunk[index] as number;
}

function rotate(sum: number, bits: number): number {
  return (sum << bits) | (sum >>> (32 - bits));
}

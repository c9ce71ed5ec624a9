/**
 * The part of one blob that is on this disk: one sparse file with the bytes and, behind them, two slots
 * that say which chunks are there.
 *
 *   the blob's bytes, holes where chunks are absent | zeroes to a multiple of 4096 | slot 0 | slot 1
 *
 * Invariant: a bit that is read back after any crash, of this process or of the power, covers bytes
 * that reached the disk. Order of writes:
 *
 *   1. a chunk's bytes are written, then its bit is set in memory;
 *   2. save(): the set is copied; fdatasync; the copy goes to the slot that is not the newest, with a CRC
 *      and a higher sequence number.
 *
 * The fdatasync of 2 puts on disk the bytes that the copy speaks of, and the slot written before. So the slot
 * being overwritten is never the only whole one, and what a torn write leaves fails its CRC: the other
 * slot counts then. A killed process loses the bits set since the last save(); a loss of power those
 * since the one before. Bytes and bits are in one file, so no bit can ever meet another file's bytes.
 *
 * When fdatasync fails, the kernel has dropped what it could not write and will not say so again: every
 * chunk that came since the last good one is forgotten.
 *
 * Chunks refetched after a failed check are written in place under a bit that may be on disk. A crash
 * then leaves a mix of the two copies, which fails the same check.
 */
import { type BlobIdentity, encodeSlot, PAGE_BYTES, parseSlot, slotBytes } from './blob-slot.js';
import { CHUNK_BYTES, ChunkSet } from './chunk-set.js';
import type { DurableFile } from './durable-file.js';

export class BlobFile {
  readonly chunks: ChunkSet;
  readonly #blob: BlobIdentity;
  readonly #file: DurableFile;
  /** Of the slot written last, and of the one that a successful sync has been through since. */
  #sequence: number;
  #durableSequence: number;
  /** The chunks whose bytes a successful sync has been through. */
  #durableBits: Uint8Array;
  #saving: Promise<void> = Promise.resolve();

  private constructor(file: DurableFile, blob: BlobIdentity, chunks: ChunkSet, sequence: number) {
    this.#file = file;
    this.#blob = blob;
    this.chunks = chunks;
    this.#sequence = sequence;
    this.#durableSequence = sequence;
    this.#durableBits = chunks.bits.slice();
  }

  /** How long the file of a blob is, all holes included. */
  static fileBytes(blobBytes: number): number {
    return stateOffset(blobBytes) + 2 * slotBytes(chunkCount(blobBytes));
  }

  /** Over a new file of zeroes. */
  static fresh(file: DurableFile, blob: BlobIdentity): BlobFile {
    return new BlobFile(file, blob, new ChunkSet(chunkCount(blob.sizeBytes)), 0);
  }

  /**
   * Over the file of an earlier run, which is closed only by close().
   *
   * @returns What is wrong with it, if it cannot be used.
   */
  static reopen(file: DurableFile, blob: BlobIdentity): BlobFile | string {
    const expected = BlobFile.fileBytes(blob.sizeBytes);
    if (file.sizeBytes !== expected) return `it has ${file.sizeBytes} bytes, not ${expected}`;
    const chunks = new ChunkSet(chunkCount(blob.sizeBytes));
    const slot = Buffer.alloc(slotBytes(chunks.chunks));
    let newest = 0;
    let unused = 0;
    for (const number of [0, 1]) {
      file.readSync(slot, slotOffset(blob.sizeBytes, number));
      const found = new ChunkSet(chunks.chunks);
      const sequence = parseSlot(slot, blob, found);
      if (sequence !== undefined && sequence > newest) {
        newest = sequence;
        chunks.assign(found.bits);
      } else if (slot.every((byte) => byte === 0)) {
        unused++;
      }
    }
    if (newest === 0 && unused < 2) return 'neither of its two slots is whole';
    return new BlobFile(file, blob, chunks, newest);
  }

  /** The blob's bytes are read by it, where they are in the set. */
  get fd(): number {
    return this.#file.fd;
  }

  /** Stores whole chunks from chunk `first` on. After an error none of them is in the set. */
  async store(first: number, bytes: Uint8Array): Promise<void> {
    await this.#file.write(bytes, first * CHUNK_BYTES);
    const end = first + Math.ceil(bytes.length / CHUNK_BYTES);
    for (let chunk = first; chunk < end; chunk++) this.chunks.add(chunk);
  }

  /**
   * Writes the set to the disk, in the order above. Calls run one after the other.
   *
   * @throws system errors; the set is then back to what is known to be on the disk.
   */
  async save(): Promise<void> {
    const before = this.#saving;
    const saving = before.catch(() => {}).then(() => this.#save());
    this.#saving = saving;
    await saving;
  }

  async #save(): Promise<void> {
    const bits = this.chunks.bits.slice();
    try {
      await this.#file.sync();
    } catch (error) {
      this.chunks.intersect(this.#durableBits);
      // The newest slot may be among what was dropped: its place is the one to write next.
      this.#sequence = this.#durableSequence;
      throw error;
    }
    this.#durableBits = bits;
    this.#durableSequence = this.#sequence;
    const sequence = this.#sequence + 1;
    const slot = encodeSlot(this.#blob, sequence, bits);
    await this.#file.write(slot, slotOffset(this.#blob.sizeBytes, sequence % 2));
    this.#sequence = sequence;
  }

  /** After the last save(), if what came since is not to be lost. */
  async close(): Promise<void> {
    await this.#saving.catch(() => {});
    await this.#file.close();
  }
}

function chunkCount(blobBytes: number): number {
  return Math.ceil(blobBytes / CHUNK_BYTES);
}

function stateOffset(blobBytes: number): number {
  return Math.ceil(blobBytes / PAGE_BYTES) * PAGE_BYTES;
}

function slotOffset(blobBytes: number, number: number): number {
  return stateOffset(blobBytes) + number * slotBytes(chunkCount(blobBytes));
}

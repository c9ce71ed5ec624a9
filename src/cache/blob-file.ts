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
 * being overwritten is never the only whole one. A torn slot fails its CRC, and the other slot counts then.
 * A killed process loses the bits set since the last save(); a loss of power loses those since the
 * save() before. Bytes and bits are in one file, so no bit can ever meet another file's bytes.
 *
 * Eviction reverses the order, because a bit on the disk must never cover a hole:
 *
 *   1. the bits are cleared in memory, and the set's generation invalidates readers' copies (chunk-set.ts);
 *   2. save() twice, and fdatasync: neither slot on the disk claims the chunks any more;
 *   3. the holes are punched. From 1 on until then nothing is stored, so no hole is punched into bytes that are newer.
 *
 * The slots have their room on the disk from the start, so that evicting works when the disk is full.
 *
 * When fdatasync fails, the kernel has dropped unwritten pages and will not report them again: the cache
 * invalidates every chunk stored since the last successful fdatasync.
 *
 * Chunks refetched after a failed check are written in place under a bit that may be on disk. A crash
 * then leaves a mix of the two copies, which fails the same check.
 */
import { systemCode } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { BlobKey } from './blob-key.js';
import {
  blobBytesInSlot,
  encodeSlot,
  PAGE_BYTES,
  parseSlot,
  SLOT_HEAD_BYTES,
  slotBytes,
} from './blob-slot.js';
import { ChunkSet } from './chunk-set.js';
import type { DurableFile } from './durable-file.js';

export class BlobFile {
  readonly chunks: ChunkSet;
  readonly #blob: BlobKey;
  readonly #file: DurableFile;
  /** Sequence numbers of the slot written last, and of the newest slot that a successful sync covers. */
  #sequence: number;
  #durableSequence: number;
  /** The chunks whose bytes a successful sync covers. */
  #durableBits: Uint8Array;
  #saving: Promise<void> = Promise.resolve();
  /** Set while chunks are evicted. */
  #evicting: Promise<unknown> | undefined;
  /** Stores in progress; eviction waits for them. */
  readonly #stores = new Set<Promise<void>>();
  #hasSlots = false;

  private constructor(file: DurableFile, blob: BlobKey, chunks: ChunkSet, sequence: number) {
    this.#file = file;
    this.#blob = blob;
    this.chunks = chunks;
    this.#sequence = sequence;
    this.#durableSequence = sequence;
    this.#durableBits = chunks.bits.slice();
  }

  /** The length of a blob's file, holes included. */
  static fileBytes(blobBytes: number): number {
    return stateOffset(blobBytes) + 2 * slotBytes(chunkCount(blobBytes));
  }

  /**
   * The size of the blob whose file has `fileBytes`, from its slots; undefined if neither slot was ever written.
   *
   * @param read - Fills a buffer from an offset of the file.
   */
  static async blobBytesOf(
    fileBytes: number,
    read: (target: Buffer, offset: number) => Promise<unknown>,
  ): Promise<number | undefined> {
    const head = Buffer.alloc(SLOT_HEAD_BYTES);
    const most = slotBytes(chunkCount(fileBytes));
    // The blob is a little smaller than its file, so its slots may be one page smaller than those of the file's size.
    for (const bytes of [most, most - PAGE_BYTES]) {
      for (const number of [1, 2]) {
        if (bytes <= 0 || fileBytes < number * bytes) continue;
        await read(head, fileBytes - number * bytes);
        const blobBytes = blobBytesInSlot(head);
        if (blobBytes !== undefined && BlobFile.fileBytes(blobBytes) === fileBytes)
          return blobBytes;
      }
    }
    return undefined;
  }

  /** Memory of an open blob, independent of how much is cached: its ChunkSet, and two copies of the bits to save. */
  static memoryBytes(blobBytes: number): number {
    const chunks = chunkCount(blobBytes);
    return ChunkSet.memoryBytes(chunks) + 2 * slotBytes(chunks);
  }

  /** Starts with a new file of zeroes. */
  static fresh(file: DurableFile, blob: BlobKey): BlobFile {
    return new BlobFile(file, blob, new ChunkSet(chunkCount(blob.sizeBytes)), 0);
  }

  /**
   * Opens the file of an earlier run. Only BlobFile.close() closes it.
   *
   * @returns The reason as a string, if the file cannot be used.
   */
  static reopen(file: DurableFile, blob: BlobKey): BlobFile | string {
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

  /** Readers use it for the chunks in the set. */
  get fd(): number {
    return this.#file.fd;
  }

  /** Stores whole chunks from chunk `first` on. After an error none of them is in the set. */
  async store(first: number, bytes: Uint8Array): Promise<void> {
    while (this.#evicting !== undefined) await this.#evicting;
    const storing = this.#store(first, bytes);
    this.#stores.add(storing);
    try {
      await storing;
    } finally {
      this.#stores.delete(storing);
    }
  }

  async #store(first: number, bytes: Uint8Array): Promise<void> {
    await this.reserveSlots();
    const end = first + Math.ceil(bytes.length / CHUNK_BYTES);
    let hadSome = false;
    for (let chunk = first; chunk < end; chunk++) hadSome = this.chunks.delete(chunk) || hadSome;
    this.chunks.nextVersion(first, end);
    // Readers may have bytes of those in memory, which are not those of the new version.
    if (hadSome) this.chunks.nextGeneration();
    await this.#file.write(bytes, first * CHUNK_BYTES);
    this.chunks.nextVersion(first, end);
    // Marked as used, so that eviction spares it until the reader that it was fetched for has read it.
    this.chunks.touch(first, end);
    this.chunks.fetched(first, end);
    for (let chunk = first; chunk < end; chunk++) this.chunks.add(chunk);
  }

  /**
   * Takes room for the slots, once.
   * @throws system errors: `ENOSPC`; another attempt can succeed.
   */
  async reserveSlots(): Promise<void> {
    if (this.#hasSlots) return;
    const { sizeBytes } = this.#blob;
    try {
      await this.#file.allocate(slotOffset(sizeBytes, 0), 2 * slotBytes(this.chunks.chunks));
    } catch (error) {
      // The file system cannot reserve room: writing a slot then reports a full disk.
      if (systemCode(error) !== 'EOPNOTSUPP') throw error;
    }
    this.#hasSlots = true;
  }

  /**
   * Gives the room of chunks that are in the set back to the file system, in the order above.
   *
   * @param victims - Ascending.
   * @returns How many of them were in the set.
   * @throws system errors; the chunks are then no longer in the set.
   */
  async evict(victims: readonly number[]): Promise<number> {
    while (this.#evicting !== undefined) await this.#evicting;
    const evicting = this.#evict(victims);
    this.#evicting = evicting
      .catch(() => {})
      .finally(() => {
        this.#evicting = undefined;
      });
    return await evicting;
  }

  async #evict(victims: readonly number[]): Promise<number> {
    await Promise.allSettled(this.#stores);
    const gone = victims.filter((chunk) => this.chunks.delete(chunk));
    if (gone.length === 0) return 0;
    this.chunks.nextGeneration();
    await this.save();
    await this.save();
    await this.#file.sync();
    const end = stateOffset(this.#blob.sizeBytes);
    for (let i = 0; i < gone.length; ) {
      const first = gone[i]!;
      let next = first;
      while (gone[i] === next) {
        i++;
        next++;
      }
      const offset = first * CHUNK_BYTES;
      await this.#file.punch(offset, Math.min(next * CHUNK_BYTES, end) - offset);
    }
    return gone.length;
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
      // Copies that readers keep of chunks which are gone must not prove those that come in their place.
      this.chunks.nextGeneration();
      // The kernel may have dropped the newest slot: the next save() overwrites it.
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

  /** Call it after a last save(): chunks stored since then are lost. */
  async close(): Promise<void> {
    await this.#evicting;
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

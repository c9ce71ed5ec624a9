/**
 * Keeps the cache within its capacity, and the file system's free space above the reserve, also when other programs
 * fill the disk.
 *
 * Evicts, in this order: whole blobs that are not open, the least recently used first; then chunks of open blobs
 * that were not used lately, opening chunks last (eviction.ts). One eviction runs at a time, and all that wait for room wait for it.
 */
import type { CacheDirectory } from './cache-directory.js';
import type { DiskSpace } from './disk-space.js';

/** Each batch of chunks costs three fdatasyncs of its blob. */
const BATCH_BYTES = 16 << 20;
/** A small cache keeps most of its chunks at each eviction. */
const BATCH_SHARE = 1 / 16;
/** Chunks that no read asked for may evict this much of the capacity at a time. */
const UNASKED_SHARE = 1 / 4;

/** `later`: everything stored was used a moment ago. `never`: nothing is left to evict. */
export type RoomAnswer = 'now' | 'later' | 'never';

/** An open blob, as far as its chunks can be evicted. */
export interface EvictableBlob {
  readonly storedBytes: number;
  readonly canEvict: boolean;
  /** Whether it holds more than opening chunks. */
  readonly hasOrdinary: boolean;
  /**
   * Evicts about `bytes`.
   * @param takesOpening - Opening chunks too.
   * @returns How many; 0 if no chunk can be evicted now.
   */
  evict(bytes: number, takesOpening: boolean): Promise<number>;
}

export class CacheRoom {
  readonly capacityBytes: number;
  readonly #directory: CacheDirectory;
  readonly #disk: DiskSpace;
  /** Evicted from in this order; a blob that gave chunks moves to the end. */
  readonly #open: Set<EvictableBlob>;
  #reservedBytes = 0;
  #evicting: Promise<number> | undefined;

  constructor(
    directory: CacheDirectory,
    disk: DiskSpace,
    capacityBytes: number,
    open: Set<EvictableBlob>,
  ) {
    this.#directory = directory;
    this.#disk = disk;
    this.capacityBytes = capacityBytes;
    this.#open = open;
  }

  /** Limit for bytes that no read requested, of a blob that is sent whole: the free space, or a share of the capacity. */
  get unaskedBytesMax(): number {
    return Math.max(this.capacityBytes - this.#usedBytes(), this.capacityBytes * UNASKED_SHARE);
  }

  /** How many bytes have room without evicting chunks of open blobs. */
  get freeBytes(): number {
    return this.capacityBytes - this.#usedBytes() + this.#directory.idleBytes;
  }

  /** How many bytes the file system lacks to the reserve; negative if it has more. */
  async missingBytes(): Promise<number> {
    return await this.#disk.missing(this.#reservedBytes);
  }

  /** Evicts all blobs that are not open. */
  async evictIdle(): Promise<{ readonly blobs: number; readonly freedBytes: number }> {
    let blobs = 0;
    let freedBytes = 0;
    for (;;) {
      const bytes = await this.#directory.evictOne();
      if (bytes === undefined) return { blobs, freedBytes };
      this.#disk.freed(bytes);
      blobs++;
      freedBytes += bytes;
    }
  }

  /** Whether `bytes` more have room without evicting chunks of open blobs. */
  async fitsUnasked(bytes: number): Promise<boolean> {
    const { idleBytes } = this.#directory;
    if (this.#usedBytes() - idleBytes + bytes > this.capacityBytes) return false;
    return (await this.#disk.missing(this.#reservedBytes + bytes)) <= idleBytes;
  }

  /** Makes room for `bytes` more, which count as used until release(). Only after `now` they are reserved. */
  async reserve(bytes: number): Promise<RoomAnswer> {
    this.#reservedBytes += bytes;
    const answer = await this.shrink();
    if (answer !== 'now') this.#reservedBytes -= bytes;
    return answer;
  }

  /** @param storedBytes - How many of those that were reserved are on the disk. */
  release(bytes: number, storedBytes: number): void {
    this.#reservedBytes -= bytes;
    this.#disk.filled(storedBytes);
  }

  /** Evicts until the limits are kept. */
  async shrink(): Promise<RoomAnswer> {
    for (;;) {
      const missing = await this.#disk.missing(this.#reservedBytes);
      const over = Math.max(this.#usedBytes() - this.capacityBytes, missing);
      if (over <= 0) return 'now';
      if ((await this.evict(over)) === 0) return this.#hasChunks() ? 'later' : 'never';
    }
  }

  /** Evicts about `bytes`, also below the limits. @returns How many; 0 if nothing can go now. */
  async evict(bytes: number): Promise<number> {
    this.#evicting ??= this.#evict(bytes).finally(() => {
      this.#evicting = undefined;
    });
    return await this.#evicting;
  }

  async #evict(bytes: number): Promise<number> {
    const ofIdle = await this.#directory.evictOne();
    if (ofIdle !== undefined) {
      this.#disk.freed(ofIdle);
      // A blob of which nothing was stored counts as progress.
      return Math.max(1, ofIdle);
    }
    const batch = Math.min(BATCH_BYTES, Math.ceil(this.capacityBytes * BATCH_SHARE));
    const blobs = [...this.#open];
    const takesOpening = !blobs.some((blob) => blob.canEvict && blob.hasOrdinary);
    let freed = 0;
    for (const blob of blobs) {
      const wanted = Math.max(bytes, batch) - freed;
      if (wanted <= 0) break;
      // Closed while others were evicted.
      if (!this.#open.has(blob)) continue;
      const ofBlob = await blob.evict(wanted, takesOpening);
      if (ofBlob === 0) continue;
      this.#disk.freed(ofBlob);
      freed += ofBlob;
      // It may have been closed during the eviction.
      if (this.#open.delete(blob)) this.#open.add(blob);
    }
    return freed;
  }

  #usedBytes(): number {
    let used = this.#directory.idleBytes + this.#reservedBytes;
    for (const blob of this.#open) used += blob.storedBytes;
    return used;
  }

  #hasChunks(): boolean {
    for (const blob of this.#open) if (blob.canEvict && blob.storedBytes > 0) return true;
    return false;
  }
}

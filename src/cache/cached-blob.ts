/**
 * A remote blob as a RandomAccessFile: what is in the cache is read from it, the rest is fetched into it.
 *
 * A handle brings its own way to the registry, repository and credentials; file, bits and fetches are those
 * of the blob, shared with its other handles. Closing it ends the fetches it caused.
 */
import type { RandomAccessFile } from '../io/random-access-file.js';
import type { BlobRanges } from '../registry/blob-ranges.js';
import type { Fetcher } from './blob-fetches.js';
import { CHUNK_BYTES } from './chunk-set.js';
import type { SharedBlob } from './shared-blob.js';

export interface CachedBlob extends RandomAccessFile {
  /** Of the blob's bytes, how many are on this disk. */
  readonly cachedBytes: number;
  /** Bytes and requests that reading through this handle caused. */
  readonly fetchedBytes: number;
  readonly fetchRequests: number;
}

export class BlobHandle implements CachedBlob, Fetcher {
  readonly label: string;
  readonly sizeBytes: number;
  readonly ranges: BlobRanges;
  readonly #blob: SharedBlob;
  readonly #onClosed: () => void;
  #fetchedBytes = 0;
  #fetchRequests = 0;
  #closed = false;

  constructor(blob: SharedBlob, ranges: BlobRanges, onClosed: () => void) {
    this.label = ranges.label;
    this.sizeBytes = ranges.sizeBytes;
    this.ranges = ranges;
    this.#blob = blob;
    this.#onClosed = onClosed;
  }

  get cachedBytes(): number {
    return this.#blob.storedBytes;
  }

  get fetchedBytes(): number {
    return this.#fetchedBytes;
  }

  get fetchRequests(): number {
    return this.#fetchRequests;
  }

  onRequest(): void {
    this.#fetchRequests++;
  }

  onBytes(bytes: number): void {
    this.#fetchedBytes += bytes;
  }

  readLocal(target: Uint8Array, offset: number): boolean {
    this.#check(offset, target.length);
    return this.#blob.read(target, offset);
  }

  async load(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    if (length === 0) return;
    const end = Math.ceil((offset + length) / CHUNK_BYTES);
    await this.#blob.fetches.load(this, Math.floor(offset / CHUNK_BYTES), end);
  }

  /** True: the registry has another copy. */
  forget(offset: number, length: number): boolean {
    this.#check(offset, length);
    if (length > 0) this.#blob.distrust(this.label, offset, length);
    return true;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#blob.fetches.dismiss(this);
    this.#onClosed();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new TypeError(`${this.label} is closed`);
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new RangeError(`[${offset}, ${offset + length}) is outside ${this.label}`);
    }
  }
}

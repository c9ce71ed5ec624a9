/**
 * A disk that can be written: what a file system is built on.
 *
 * Synchronous on purpose: its only users build images, in a process of their own, on local files.
 */
export interface BlockDevice {
  /** Bytes, a multiple of 4096. */
  readonly sizeBytes: number;
  /** Fills `target` from `offset` (bytes). Bytes that were never written read as zeroes. */
  read(target: Uint8Array, offset: number): void;
  /** Keeps the bytes; `source` may be reused afterwards. Offset and length are multiples of 512. */
  write(source: Uint8Array, offset: number): void;
  /** Promises that [offset, offset + length) is not read again before it is written. */
  discard(offset: number, length: number): void;
}

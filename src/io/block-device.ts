/**
 * A disk that can be written: what a file system is built on.
 *
 * Synchronous on purpose: its only users build images, in a process of their own, on local files.
 */
export interface BlockDevice {
  /** Bytes, a multiple of 4096. */
  readonly sizeBytes: number;
  /** Fills `target` from `offset` (bytes). What was never written reads as zeroes. */
  read(target: Uint8Array, offset: number): void;
  /** Keeps the bytes; `source` may be reused afterwards. Offset and length are multiples of 512. */
  write(source: Uint8Array, offset: number): void;
  /** Says that nobody will read [offset, offset + length) again before writing it. */
  discard(offset: number, length: number): void;
}

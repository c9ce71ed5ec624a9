/** What the transports export: the disk that a stack of layers adds up to. Read-only. */
import type { RandomAccessFile } from '../io/random-access-file.js';

export interface VirtualDisk extends RandomAccessFile {
  /**
   * The number of bytes from `offset`, at most `length`, that are alike: positive where a layer holds
   * data, negative where nothing does and the bytes are zeroes. Needs nothing but the index.
   */
  extentAt(offset: number, length: number): number;
}

/** Tells a ZFile from a plain layer by its first bytes. */
import { corrupt } from '../io/format-error.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import { HEADER_BYTES, hasZFileMagic } from './zfile-header.js';

/**
 * Whether `source` opens with a ZFile's magic. A damaged header is still a ZFile's: ZFileReader.open
 * says what is wrong with it.
 *
 * @throws {ObdError} `Corrupt` if the file is too short to be either.
 */
export async function isZFile(source: RandomAccessFile): Promise<boolean> {
  if (source.sizeBytes < HEADER_BYTES) {
    throw corrupt(source, 0, `${source.sizeBytes} bytes are too few for a layer`);
  }
  const block = Buffer.alloc(HEADER_BYTES);
  await readFully(source, block, 0);
  return hasZFileMagic(block);
}

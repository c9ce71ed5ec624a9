/**
 * The reads of the image's disk that reading files comes to. The metadata of the file system are not among them: obd-blockd
 * fetches these whenever it opens the image.
 */
import type { DeviceRange } from '../ext4/ext4-file-system.js';
import type { Ext4Tree } from './ext4-tree.js';
import { ImageFiles } from './image-files.js';
import type { ByteRange } from './prediction.js';

/** Longer reads are cut, as a kernel does: a list of reads can then end in the middle of a file. */
const READ_BYTES_MAX = 1 << 20;

/** Byte ranges of a file; undefined for all of it. */
export interface ReadFile {
  /** Absolute; may lead over symlinks. */
  readonly path: string;
  readonly ranges: readonly ByteRange[] | undefined;
}

export interface DiskReads {
  /** In the order of the files. */
  readonly reads: readonly DeviceRange[];
  /** Paths that lead to a directory. */
  readonly directories: readonly string[];
  /** Paths that lead to neither file nor directory. */
  readonly missing: readonly string[];
}

/** @throws {ObdError} errors of reading the image. */
export async function diskReads(tree: Ext4Tree, files: readonly ReadFile[]): Promise<DiskReads> {
  const image = new ImageFiles(tree);
  const reads: DeviceRange[] = [];
  const directories: string[] = [];
  const missing: string[] = [];
  for (const { path, ranges } of files) {
    const found = await image.find(path);
    const file = found?.kind === 'file' ? found : undefined;
    if (file === undefined) (found?.kind === 'directory' ? directories : missing).push(path);
    const whole = { start: 0, end: file?.sizeBytes ?? 0 };
    for (const { start, end } of file === undefined ? [] : (ranges ?? [whole])) {
      for (const { offset, length } of await tree.diskRanges(file!.inode, start, end)) {
        for (let at = 0; at < length; at += READ_BYTES_MAX) {
          reads.push({ offset: offset + at, length: Math.min(READ_BYTES_MAX, length - at) });
        }
      }
    }
  }
  return { reads, directories, missing };
}

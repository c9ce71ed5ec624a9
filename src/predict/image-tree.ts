/**
 * The files of an image by inode, as the predictor sees them. It never runs or changes anything.
 *
 * An inode stands for a file under all its names: a program with 270 hard links is one file.
 */

export interface TreeNode {
  readonly inode: number;
  /** Everything else is of no use to a prediction. */
  readonly kind: 'file' | 'directory' | 'symlink' | 'other';
  readonly sizeBytes: number;
  readonly isExecutable: boolean;
}

/** @throws {ObdError} each method: what reading the disk throws, `Corrupt` for a damaged file system. */
export interface ImageTree {
  readonly root: number;
  /** Bytes that the files of the image take. */
  readonly contentBytes: number;
  stat(inode: number): Promise<TreeNode>;
  /** The inode of a name in a directory. */
  child(directory: number, name: string): Promise<number | undefined>;
  /** All names in a directory but "." and "..", in no order. */
  names(directory: number): Promise<string[]>;
  readLink(inode: number): Promise<string>;
  /** The bytes [offset, offset + length) of a file, which must be inside it. */
  read(inode: number, offset: number, length: number): Promise<Buffer>;
}

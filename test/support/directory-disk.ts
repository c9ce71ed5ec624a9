/** Disks with an ext4 of directories that have a file each, for tests. */
import { Ext4FileSystem } from '../../src/ext4/ext4-file-system.js';
import { ROOT_INODE } from '../../src/ext4/superblock.js';
import { distinctBytes } from './blob-double.js';

const TIME = { seconds: 1_700_000_000, nanoseconds: 0 };

export interface DirectoryDisk {
  readonly bytes: Buffer;
  /** How many the file system has, with its root and lost+found. */
  readonly directories: number;
  /** `directory/file` and content, in the order of the disk. */
  readonly files: ReadonlyMap<string, Buffer>;
}

export function directoryDisk(
  sizeBytes: number,
  directories: number,
  fileBytes: number,
): DirectoryDisk {
  const bytes = Buffer.alloc(sizeBytes);
  const device = {
    sizeBytes,
    read: (target: Uint8Array, offset: number) => {
      target.set(bytes.subarray(offset, offset + target.length));
    },
    write: (source: Uint8Array, offset: number) => bytes.set(source, offset),
    discard: () => {},
  };
  const fs = Ext4FileSystem.format(device, { uuid: Buffer.alloc(16, 7) });
  const attributes = { uid: 0, gid: 0, mtime: TIME, atime: TIME, ctime: TIME };
  const files = new Map<string, Buffer>();
  const inodes: number[] = [];
  for (let i = 0; i < directories; i++) {
    const name = `directory-${i}`;
    const kind = { kind: 'directory' } as const;
    inodes.push(fs.create(ROOT_INODE, Buffer.from(name), kind, { mode: 0o755, ...attributes }));
  }
  for (const [i, directory] of inodes.entries()) {
    const content = distinctBytes(fileBytes, i + 1);
    const kind = { kind: 'file' } as const;
    const inode = fs.create(directory, Buffer.from('file'), kind, { mode: 0o644, ...attributes });
    const writer = fs.writer(inode);
    writer.write(content);
    writer.end();
    files.set(`directory-${i}/file`, content);
  }
  fs.flush();
  return { bytes, directories: directories + 2, files };
}

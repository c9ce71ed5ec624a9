/** Images for tests of the predictor: real ext4 file systems in memory, made from a list of files. */
import { dirname } from 'node:path';
import { Ext4FileSystem } from '../../src/ext4/ext4-file-system.js';
import { ROOT_INODE } from '../../src/ext4/superblock.js';
import type { BlockDevice } from '../../src/io/block-device.js';
import type { RandomAccessFile } from '../../src/io/random-access-file.js';
import { Ext4Tree } from '../../src/predict/ext4-tree.js';
import { type Prediction, predictStart } from '../../src/predict/predict-start.js';
import { startCommand } from '../../src/predict/start-command.js';

/** A file's bytes, a link, a second name of a file, or so many zero bytes that take no room. */
export type Content =
  | string
  | Uint8Array
  | { link: string }
  | { same: string }
  | { holeBytes: number };

const BLOCK_BYTES = 4096;
const DISK_BYTES = 8 * 2 ** 30;
const ZEROES = Buffer.alloc(BLOCK_BYTES);
/** A prediction is at most a quarter of its image; with so much padding that is 32 MiB. */
const PADDING_BYTES = 128 << 20;
const TIME = { seconds: 0, nanoseconds: 0 };
const ATTRIBUTES = { mode: 0o755, uid: 0, gid: 0, mtime: TIME, atime: TIME, ctime: TIME };

/** A disk that keeps only blocks with content. */
export class SparseMemory implements BlockDevice, RandomAccessFile {
  readonly label = 'memory';
  readonly sizeBytes = DISK_BYTES;
  readonly #blocks = new Map<number, Buffer>();

  read(target: Uint8Array, offset: number): void {
    this.#each(target, offset, (part, number, from) => {
      const block = this.#blocks.get(number);
      if (block === undefined) part.fill(0);
      else part.set(block.subarray(from, from + part.length));
    });
  }

  write(source: Uint8Array, offset: number): void {
    this.#each(source, offset, (part, number, from) => {
      const isKept = this.#blocks.has(number);
      if (!isKept && ZEROES.subarray(0, part.length).equals(part)) return;
      const block = this.#blocks.get(number) ?? Buffer.alloc(BLOCK_BYTES);
      block.set(part, from);
      this.#blocks.set(number, block);
    });
  }

  discard(): void {}

  tryRead(target: Uint8Array, offset: number): boolean {
    this.read(target, offset);
    return true;
  }

  async load(_offset: number, _length: number): Promise<void> {}

  invalidate(): boolean {
    return false;
  }

  close(): void {}

  #each(
    bytes: Uint8Array,
    offset: number,
    visit: (part: Uint8Array, number: number, from: number) => void,
  ): void {
    for (let at = 0; at < bytes.length; ) {
      const from = (offset + at) % BLOCK_BYTES;
      const length = Math.min(bytes.length - at, BLOCK_BYTES - from);
      visit(bytes.subarray(at, at + length), Math.floor((offset + at) / BLOCK_BYTES), from);
      at += length;
    }
  }
}

/** The disk of an image with these files, in this order; directories are made as needed. */
export function diskOf(files: Readonly<Record<string, Content>>): SparseMemory {
  const disk = new SparseMemory();
  const fs = Ext4FileSystem.format(disk, { uuid: Buffer.alloc(16, 7) });
  const inodes = new Map<string, number>([['/', ROOT_INODE]]);
  const directory = (path: string): number => {
    const known = inodes.get(path);
    if (known !== undefined) return known;
    const made = fs.create(
      directory(dirname(path)),
      nameOf(path),
      { kind: 'directory' },
      ATTRIBUTES,
    );
    inodes.set(path, made);
    return made;
  };
  for (const [path, content] of Object.entries(files)) {
    const parent = directory(dirname(path));
    const name = nameOf(path);
    if (typeof content === 'object' && 'link' in content) {
      fs.create(parent, name, { kind: 'symlink', target: Buffer.from(content.link) }, ATTRIBUTES);
    } else if (typeof content === 'object' && 'same' in content) {
      fs.link(parent, name, inodes.get(content.same)!);
    } else {
      const inode = fs.create(parent, name, { kind: 'file' }, ATTRIBUTES);
      inodes.set(path, inode);
      const writer = fs.writer(inode);
      if (typeof content === 'object' && 'holeBytes' in content) writer.hole(content.holeBytes);
      else writer.write(Buffer.from(content));
      writer.end();
    }
  }
  const padding = fs.create(ROOT_INODE, Buffer.from('padding'), { kind: 'file' }, ATTRIBUTES);
  const writer = fs.writer(padding);
  const piece = Buffer.alloc(1 << 20);
  for (let written = 0; written < PADDING_BYTES; written += piece.length) writer.write(piece);
  writer.end();
  fs.flush();
  return disk;
}

export async function treeOf(files: Readonly<Record<string, Content>>): Promise<Ext4Tree> {
  return await Ext4Tree.open(diskOf(files));
}

/** Predicts the start of `argv` in an image with these files, which has PATH=/bin. */
export async function predictionOf(
  files: Readonly<Record<string, Content>>,
  argv: readonly string[],
  { env = [], cwd = '/' }: { readonly env?: readonly string[]; readonly cwd?: string } = {},
): Promise<Prediction> {
  const options = { entrypoint: argv, env: ['PATH=/bin', ...env], cwd };
  return await predictStart(await treeOf(files), startCommand({}, options));
}

/** The paths of a prediction, each once, in its order; of one rule if it is named. */
export function pathsOf({ files }: Prediction, rule?: string): string[] {
  const own = files.filter((file) => rule === undefined || file.rule === rule);
  return [...new Set(own.map(({ path }) => path))];
}

function nameOf(path: string): Buffer {
  return Buffer.from(path.slice(path.lastIndexOf('/') + 1));
}

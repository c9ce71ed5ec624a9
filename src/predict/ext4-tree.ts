/**
 * The files of an ext4 disk whose bytes may have to be fetched first.
 *
 * The ext4 reader is synchronous. When it needs bytes that are not in memory, its call is abandoned, the bytes are loaded
 * and the call is repeated: reading changes nothing, and what was loaded is kept until the call has succeeded.
 */
import { ErrorCodes, hasCode } from '../errors.js';
import { type DeviceRange, Ext4FileSystem } from '../ext4/ext4-file-system.js';
import { ROOT_INODE } from '../ext4/superblock.js';
import type { BlockDevice } from '../io/block-device.js';
import { type RandomAccessFile, readFully } from '../io/random-access-file.js';
import type { ImageTree, TreeNode } from './image-tree.js';

const ANY_EXECUTE_BIT = 0o111;

export class Ext4Tree implements ImageTree {
  readonly root = ROOT_INODE;
  readonly contentBytes: number;
  readonly #disk: LoadedDisk;
  readonly #fs: Ext4FileSystem;

  private constructor(disk: LoadedDisk, fs: Ext4FileSystem) {
    this.#disk = disk;
    this.#fs = fs;
    this.contentBytes = fs.contentBytes;
  }

  /**
   * @param source - The disk; stays the caller's to close.
   * @throws {ObdError} `Unsupported` for another file system, `Corrupt`, errors of reading `source`.
   */
  static async open(source: RandomAccessFile): Promise<Ext4Tree> {
    const disk = new LoadedDisk(source);
    return new Ext4Tree(disk, await disk.run(() => Ext4FileSystem.open(disk)));
  }

  async stat(inode: number): Promise<TreeNode> {
    const { kind, mode, sizeBytes } = await this.#disk.run(() => this.#fs.stat(inode));
    const isKnown = kind === 'file' || kind === 'directory' || kind === 'symlink';
    const isExecutable = kind === 'file' && (mode & ANY_EXECUTE_BIT) !== 0;
    return { inode, kind: isKnown ? kind : 'other', sizeBytes, isExecutable };
  }

  async child(directory: number, name: string): Promise<number | undefined> {
    return await this.#disk.run(() => this.#fs.lookup(directory, Buffer.from(name)));
  }

  async names(directory: number): Promise<string[]> {
    return await this.#disk.run(() =>
      Array.from(this.#fs.entries(directory), ({ name }) => Buffer.from(name).toString()),
    );
  }

  async readLink(inode: number): Promise<string> {
    return Buffer.from(await this.#disk.run(() => this.#fs.readLink(inode))).toString();
  }

  /** Where bytes [start, end) of a file are on the disk, in their order; holes are left out. */
  async diskRanges(inode: number, start: number, end: number): Promise<DeviceRange[]> {
    return await this.#disk.run(() => this.#fs.deviceRanges(inode, start, end));
  }

  async read(inode: number, offset: number, length: number): Promise<Buffer> {
    return await this.#disk.run(() => {
      const target = Buffer.alloc(length);
      this.#fs.readFile(inode, target, offset);
      return target;
    });
  }
}

/** Thrown through the ext4 reader; caught by run(). */
class NotLoaded extends Error {
  readonly offset: number;
  readonly length: number;

  constructor(offset: number, length: number) {
    super('not loaded');
    this.offset = offset;
    this.length = length;
  }
}

class LoadedDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly #source: RandomAccessFile;
  /** Bytes that the call in progress had to wait for, by offset and length. */
  readonly #loaded = new Map<string, Buffer>();

  constructor(source: RandomAccessFile) {
    this.#source = source;
    this.sizeBytes = source.sizeBytes;
  }

  /** Calls `operation` until all that it reads is in memory. One call at a time. */
  async run<T>(operation: () => T): Promise<T> {
    try {
      for (;;) {
        try {
          return operation();
        } catch (error) {
          if (!(error instanceof NotLoaded)) throw error;
          const bytes = Buffer.alloc(error.length);
          await readFully(this.#source, bytes, error.offset);
          this.#loaded.set(`${error.offset}:${error.length}`, bytes);
        }
      }
    } finally {
      this.#loaded.clear();
    }
  }

  read(target: Uint8Array, offset: number): void {
    const loaded = this.#loaded.get(`${offset}:${target.length}`);
    if (loaded !== undefined) target.set(loaded);
    else if (!this.#tryRead(target, offset)) throw new NotLoaded(offset, target.length);
  }

  write(): never {
    throw new TypeError('the disk of an image is only read');
  }

  discard(): never {
    throw new TypeError('the disk of an image is only read');
  }

  /** readFully() fetches again what fails its check. */
  #tryRead(target: Uint8Array, offset: number): boolean {
    try {
      return this.#source.tryRead(target, offset);
    } catch (error) {
      if (hasCode(error, ErrorCodes.Corrupt)) return false;
      throw error;
    }
  }
}

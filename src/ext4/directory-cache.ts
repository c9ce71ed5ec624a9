/**
 * The directories in use. Dropping one loses nothing: its blocks are the truth, and are in the metadata
 * cache or on the device.
 *
 * Two generations, as in the metadata cache: a directory that was not asked for while the young one filled
 * up is dropped. Nothing is dropped before trim(), which the file system calls between two operations.
 */
import { Directory } from './directory.js';
import type { Inode } from './inode.js';
import type { Volume } from './volume.js';

/** Names in a generation, some 15 MiB of them. */
const YOUNG_NAMES_MAX = 1 << 16;
/** What a directory takes besides its names, in names. */
const DIRECTORY_NAMES = 8;

interface Slot {
  readonly directory: Directory;
  counted: number;
}

export class DirectoryCache {
  readonly #volume: Volume;
  #young = new Map<number, Slot>();
  #old = new Map<number, Slot>();
  #youngNames = 0;

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  /** @throws {ObdError} `Corrupt`, `Unsupported`. */
  get(number: number): Directory {
    const young = this.#young.get(number);
    if (young === undefined) {
      const old = this.#old.get(number);
      this.#old.delete(number);
      return this.#keep(number, old?.directory ?? Directory.load(this.#volume, number));
    }
    // It may have grown since it was last asked for.
    this.#youngNames += young.directory.size - young.counted;
    young.counted = young.directory.size;
    return young.directory;
  }

  make(inode: Inode, parent: number): void {
    this.#keep(inode.number, Directory.make(this.#volume, inode, parent));
  }

  /** The directory is no more. */
  drop(number: number): void {
    this.#young.delete(number);
    this.#old.delete(number);
  }

  trim(): void {
    if (this.#youngNames < YOUNG_NAMES_MAX) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#youngNames = 0;
  }

  #keep(number: number, directory: Directory): Directory {
    this.#young.set(number, { directory, counted: directory.size });
    this.#youngNames += directory.size + DIRECTORY_NAMES;
    return directory;
  }
}

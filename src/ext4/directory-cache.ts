/**
 * The directories in use. Evicting one loses nothing: its blocks are authoritative, and are in the metadata cache or on
 * the device.
 *
 * Two generations, as in the metadata cache: a directory that was not used while the young generation filled up is
 * evicted. Only trim() evicts; the file system calls it between two operations.
 */
import { Directory } from './directory.js';
import type { Inode } from './inode.js';
import type { Volume } from './volume.js';

/** Names in a generation, some 15 MiB of them. */
const YOUNG_NAMES_MAX = 1 << 16;
/** Fixed cost of a directory, counted in names. */
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
    // It may have grown since its last use.
    this.#youngNames += young.directory.size - young.counted;
    young.counted = young.directory.size;
    return young.directory;
  }

  make(inode: Inode, parent: number): void {
    this.#keep(inode.number, Directory.make(this.#volume, inode, parent));
  }

  /** Removes a deleted directory. */
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

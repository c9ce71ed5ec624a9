/**
 * The directories in use, least recently used dropped first. Dropping loses nothing: their blocks are the
 * truth, and are in the metadata cache or on the device.
 */
import { Directory } from './directory.js';
import type { Inode } from './inode.js';
import type { Volume } from './volume.js';

/** Names in memory, some 40 MiB of them; an empty directory counts as one. */
const NAMES_MAX = 1 << 18;

interface Slot {
  readonly directory: Directory;
  counted: number;
}

export class DirectoryCache {
  readonly #volume: Volume;
  readonly #slots = new Map<number, Slot>();
  #names = 0;

  constructor(volume: Volume) {
    this.#volume = volume;
  }

  /** @throws {ObdError} `Corrupt`, `Unsupported`. */
  get(number: number): Directory {
    const known = this.#slots.get(number);
    if (known === undefined) return this.#keep(number, Directory.load(this.#volume, number));
    this.#names -= known.counted;
    this.#slots.delete(number);
    return this.#keep(number, known.directory);
  }

  make(inode: Inode, parent: number): void {
    this.#keep(inode.number, Directory.make(this.#volume, inode, parent));
  }

  /** The directory is no more. */
  drop(number: number): void {
    this.#names -= this.#slots.get(number)?.counted ?? 0;
    this.#slots.delete(number);
  }

  trim(): void {
    for (const number of this.#slots.keys()) {
      if (this.#names <= NAMES_MAX || this.#slots.size === 1) return;
      this.drop(number);
    }
  }

  #keep(number: number, directory: Directory): Directory {
    const counted = directory.size + 1;
    this.#slots.set(number, { directory, counted });
    this.#names += counted;
    return directory;
  }
}

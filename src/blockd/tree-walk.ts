/**
 * Watches whether a start walks through the whole tree of its image, as a program does that packs, copies, checks or searches it:
 * whether it reads at least half of the directories.
 *
 * Starts of programs read 4 to 16 % of the directories of the benchmark's images, and one that reads most of the files reads all of
 * them, before the files (docs/adr/0012). The kernel reads a block of a directory at a time, and once.
 */
import type { RequestKind, RequestObserver } from '../blockdev/request-observer.js';
import { beginsDirectory, countDirectories } from '../ext4/directory-census.js';
import { EXT4_BLOCK_BYTES } from '../io/block-sizes.js';

/** Small images have few directories, and come whole anyway. */
const DIRECTORIES_MIN = 64;
/** Bounds the memory of a watch. */
const DIRECTORIES_MAX = 1 << 17;
const WALKED_SHARE = 0.5;

interface WalkedDisk {
  readonly sizeBytes: number;
  tryRead(target: Uint8Array, offset: number): boolean;
}

export class TreeWalk implements RequestObserver {
  readonly #disk: WalkedDisk;
  readonly #onWalked: () => void;
  readonly #block = Buffer.alloc(EXT4_BLOCK_BYTES);
  /** Where directories were read, by block. */
  readonly #seen = new Set<number>();
  /** How many have to be read; undefined before there is a reason to count them. */
  #wanted: number | undefined;
  #isOver = false;

  /** @param onWalked - Called at most once, while a read ends. */
  constructor(disk: WalkedDisk, onWalked: () => void) {
    this.#disk = disk;
    this.#onWalked = onWalked;
  }

  started(): void {}

  ended(
    kind: RequestKind,
    offset: number,
    length: number,
    _durationMs: number,
    _servedFrom: unknown,
    error: unknown,
  ): void {
    const isBlock = kind === 'read' && length === EXT4_BLOCK_BYTES && error === undefined;
    if (this.#isOver || !isBlock || offset % EXT4_BLOCK_BYTES !== 0) return;
    // It was just read, so it is here.
    if (!this.#disk.tryRead(this.#block, offset) || !beginsDirectory(this.#block)) return;
    this.#seen.add(offset / EXT4_BLOCK_BYTES);
    if (this.#seen.size < DIRECTORIES_MIN) return;
    this.#wanted ??= this.#count();
    if (this.#seen.size < this.#wanted) return;
    this.#isOver = true;
    this.#seen.clear();
    this.#onWalked();
  }

  #count(): number {
    const directories = countDirectories(this.#disk) ?? Number.POSITIVE_INFINITY;
    const isWatched = directories <= DIRECTORIES_MAX;
    this.#isOver = !isWatched;
    return isWatched ? directories * WALKED_SHARE : Number.POSITIVE_INFINITY;
  }
}

/**
 * The names that the current layer has unpacked, with all directories above them: its whiteouts must spare them, in any
 * order.
 *
 * Kept by directory inode and name, not by path, so that two paths to one directory are one. A removed directory takes
 * its names with it, since its inode number may be used again for another directory.
 */
import type { Ext4FileSystem } from '../ext4/ext4-file-system.js';
import type { ResolvedDirectory } from './layer-path.js';

export class UnpackedNames {
  readonly #fs: Ext4FileSystem;
  readonly #names = new Map<number, Set<string>>();

  constructor(fs: Ext4FileSystem) {
    this.#fs = fs;
  }

  add(directory: ResolvedDirectory, name: Uint8Array): void {
    for (const step of directory.steps) this.#addOne(step.parent, step.name);
    this.#addOne(directory.inode, name);
  }

  #addOne(directory: number, name: Uint8Array): void {
    const names = this.#names.get(directory);
    if (names === undefined) this.#names.set(directory, new Set([keyOf(name)]));
    else names.add(keyOf(name));
  }

  has(directory: number, name: Uint8Array): boolean {
    return this.#names.get(directory)?.has(keyOf(name)) === true;
  }

  /** Removes `name` and everything under it. */
  remove(directory: number, name: Uint8Array, inode: number): void {
    this.#deleteUnder(inode);
    this.#names.get(directory)?.delete(keyOf(name));
    this.#fs.remove(directory, name);
  }

  /** Removes `name` and everything under it, except the names that this layer has unpacked. */
  removeOlder(directory: number, name: Uint8Array, inode: number): void {
    if (!this.has(directory, name)) this.remove(directory, name, inode);
    else if (this.#fs.stat(inode).kind === 'directory') this.emptyOlder(inode);
  }

  /** The same for everything in a directory, which itself stays. */
  emptyOlder(directory: number): void {
    for (const { name, inode } of [...this.#fs.entries(directory)]) {
      this.removeOlder(directory, name, inode);
    }
  }

  #deleteUnder(inode: number): void {
    if (this.#names.size === 0 || this.#fs.stat(inode).kind !== 'directory') return;
    this.#names.delete(inode);
    for (const entry of this.#fs.entries(inode)) this.#deleteUnder(entry.inode);
  }
}

function keyOf(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.length).toString('latin1');
}

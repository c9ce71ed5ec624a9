/**
 * Hard links whose target is not final when they come: either it is not there yet, or a lower layer has it and this
 * layer may still replace it. Archives need not list the target first.
 *
 * settle(), at the end of the layer, repeats a pass over them until no more can be resolved, because a link's target
 * may itself be a waiting link. A link whose target is still missing is an error that names both.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Ext4FileSystem } from '../ext4/ext4-file-system.js';
import { quoteName } from '../tar/tar-entry.js';
import { type ResolvedDirectory, ScopedTree } from './layer-path.js';
import type { UnpackedNames } from './unpacked-names.js';

/** Links waiting in one layer. Sound archives have a handful; a wait costs some hundred bytes. */
const WAITING_MAX = 1 << 20;

interface Waiting {
  readonly directory: ResolvedDirectory;
  readonly name: Uint8Array;
  readonly target: readonly Uint8Array[];
  readonly targetName: Uint8Array;
  /** The inode of the lower layer that it links to for now. */
  readonly lower: number | undefined;
  readonly offset: number;
}

export class HardLinks {
  readonly #fs: Ext4FileSystem;
  readonly #tree: ScopedTree;
  readonly #unpacked: UnpackedNames;
  #waiting: Waiting[] = [];

  constructor(fs: Ext4FileSystem, unpacked: UnpackedNames) {
    this.#fs = fs;
    this.#tree = new ScopedTree(fs);
    this.#unpacked = unpacked;
  }

  /** @throws {ObdError} `Corrupt` for a link to a directory. */
  add(
    directory: ResolvedDirectory,
    name: Uint8Array,
    target: readonly Uint8Array[],
    entry: { readonly linkName: Uint8Array; readonly offset: number },
  ): void {
    const found = this.#find(target);
    if (found !== undefined) this.#link(directory.inode, name, found.inode);
    else this.#removeExisting(directory.inode, name);
    this.#unpacked.add(directory, name);
    if (found?.unpacked === true) return;
    if (this.#waiting.length === WAITING_MAX) {
      const many = `more than ${WAITING_MAX} hard links come before their targets`;
      throw new ObdError(ErrorCodes.Unsupported, many);
    }
    const { linkName: targetName, offset } = entry;
    this.#waiting.push({ directory, name, target, targetName, lower: found?.inode, offset });
  }

  /** @throws {ObdError} `Corrupt`, naming the first link whose target never came. */
  settle(): void {
    for (let moved = true; moved; ) {
      const before = this.#waiting.length;
      this.#waiting = this.#waiting.filter((link) => !this.#settleOne(link));
      moved = this.#waiting.length < before;
    }
    const lost = this.#waiting.find((link) => link.lower === undefined);
    if (lost === undefined) return;
    throw new ObdError(
      ErrorCodes.Corrupt,
      `the hard link ${quoteName(lost.name)} at ${lost.offset} has no target: ` +
        `${quoteName(lost.targetName)} is neither in this layer nor below it`,
    );
  }

  /** Returns true if this link needs no more work. */
  #settleOne(link: Waiting): boolean {
    // The link was removed together with its directory.
    if (!this.#unpacked.has(link.directory.inode, link.name)) return true;
    // A later member of the same name replaced it.
    if (this.#fs.lookup(link.directory.inode, link.name) !== link.lower) return true;
    const found = this.#find(link.target);
    if (found === undefined || (link.lower !== undefined && !found.unpacked)) return false;
    this.#link(link.directory.inode, link.name, found.inode);
    this.#unpacked.add(link.directory, link.name);
    return true;
  }

  #find(target: readonly Uint8Array[]): { inode: number; unpacked: boolean } | undefined {
    const name = target.at(-1);
    const directory = this.#tree.find(target.slice(0, -1));
    if (name === undefined || directory === undefined) return undefined;
    const inode = this.#fs.lookup(directory.inode, name);
    if (inode === undefined) return undefined;
    return { inode, unpacked: this.#unpacked.has(directory.inode, name) };
  }

  #link(directory: number, name: Uint8Array, inode: number): void {
    if (this.#fs.stat(inode).kind === 'directory') {
      throw new ObdError(ErrorCodes.Corrupt, 'it is a hard link to a directory');
    }
    if (this.#fs.lookup(directory, name) === inode) return;
    this.#removeExisting(directory, name);
    this.#fs.link(directory, name, inode);
  }

  #removeExisting(directory: number, name: Uint8Array): void {
    const existing = this.#fs.lookup(directory, name);
    if (existing !== undefined) this.#unpacked.remove(directory, name, existing);
  }
}

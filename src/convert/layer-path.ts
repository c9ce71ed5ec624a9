/**
 * Maps a name in a layer's tar to a directory and a name in the file system being built, never outside it.
 *
 * Two steps. splitName() cleans the name as bytes, the way Go's filepath.Clean does: a leading slash,
 * empty components and "." vanish, ".." takes back the component before it; a name that takes back more
 * than it has is refused, because no tool writes it and it can only be meant to escape.
 *
 * ScopedTree then walks the directories. A symlink among them is followed as if the image were already the
 * root (an absolute target starts at the image's root, ".." stops there), which is what containerd
 * (fs.RootPath) and umoci (securejoin) do: `lib -> usr/lib` in one layer and `lib/x` in the next is
 * common. The last component is never followed. For any links, a walk only moves between
 * directories of this file system.
 */
import { ErrorCodes, ObdError } from '../errors.js';
import type { Attributes, Ext4FileSystem } from '../ext4/ext4-file-system.js';
import { ROOT_INODE } from '../ext4/superblock.js';
import { quoteName } from '../tar/tar-entry.js';

/** Limit of ext4 and of every Linux file system. */
const NAME_BYTES_MAX = 255;
/** As securejoin has it; the kernel itself gives up after 40. */
const SYMLINKS_MAX = 255;
/** No path in a running container, of at most PATH_MAX bytes, leads deeper. It bounds the walks down a tree, too. */
const DEPTH_MAX = 2048;
const SLASH = 0x2f;
const DOT = 0x2e;

/** A directory, and how the root leads to it. */
export interface ResolvedDirectory {
  readonly inode: number;
  /** Directory inode and name of every step from the root down to it. */
  readonly steps: readonly Step[];
}

interface Step {
  readonly parent: number;
  readonly name: Uint8Array;
  readonly inode: number;
}

/** @throws {ObdError} `Corrupt` for a name that escapes, `Unsupported` for one that ext4 cannot hold. */
export function splitName(name: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (const part of rawParts(name)) {
    if (!isDotDot(part)) {
      parts.push(part);
    } else if (parts.pop() === undefined) {
      throw new ObdError(ErrorCodes.Corrupt, 'its name leads out of the root with ".."');
    }
  }
  const long = parts.find((part) => part.length > NAME_BYTES_MAX);
  if (long !== undefined) {
    const found = `a component of its name has ${long.length} bytes, the limit is ${NAME_BYTES_MAX}`;
    throw new ObdError(ErrorCodes.Unsupported, found);
  }
  return parts;
}

/** Components without the empty ones and ".". */
function rawParts(name: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let start = 0; start < name.length; ) {
    const slash = name.indexOf(SLASH, start);
    const end = slash < 0 ? name.length : slash;
    if (end > start && !(end === start + 1 && name[start] === DOT)) {
      parts.push(name.subarray(start, end));
    }
    start = end + 1;
  }
  return parts;
}

function isDotDot(part: Uint8Array): boolean {
  return part.length === 2 && part[0] === DOT && part[1] === DOT;
}

export class ScopedTree {
  readonly #fs: Ext4FileSystem;

  constructor(fs: Ext4FileSystem) {
    this.#fs = fs;
  }

  /** The directory that `parts` lead to, or undefined if that is not there or no directory. */
  find(parts: readonly Uint8Array[]): ResolvedDirectory | undefined {
    const found = this.#walk(parts, undefined);
    return typeof found === 'string' ? undefined : found;
  }

  /**
   * The directory that `parts` lead to; what is missing on the way is made, with these attributes.
   *
   * @throws {ObdError} `Corrupt` where something on the way is no directory, or links run in circles;
   *   `Unsupported` deeper than DEPTH_MAX.
   */
  make(parts: readonly Uint8Array[], missing: Attributes): ResolvedDirectory {
    const found = this.#walk(parts, missing);
    if (typeof found === 'string') throw new ObdError(ErrorCodes.Corrupt, found);
    return found;
  }

  /** A string says what is in the way. */
  #walk(parts: readonly Uint8Array[], missing: Attributes | undefined): ResolvedDirectory | string {
    const steps: Step[] = [];
    const todo = [...parts].reverse();
    for (let links = 0; ; ) {
      const name = todo.pop();
      const parent = steps.at(-1)?.inode ?? ROOT_INODE;
      if (name === undefined) return { inode: parent, steps };
      if (isDotDot(name)) {
        steps.pop();
        continue;
      }
      let inode = this.#fs.lookup(parent, name);
      if (inode === undefined) {
        if (missing === undefined) return `${quoteName(name)} on the way to it is not there`;
        inode = this.#fs.create(parent, name, { kind: 'directory' }, missing);
      }
      const { kind } = this.#fs.stat(inode);
      if (kind === 'directory') {
        if (steps.push({ parent, name, inode }) > DEPTH_MAX) {
          const found = `it lies more than ${DEPTH_MAX} directories deep`;
          throw new ObdError(ErrorCodes.Unsupported, found);
        }
      } else if (kind !== 'symlink') {
        return `${quoteName(name)} on the way to it is no directory but a ${kind}`;
      } else if (++links > SYMLINKS_MAX) {
        return `more than ${SYMLINKS_MAX} symlinks on the way to it`;
      } else {
        const target = this.#fs.readLink(inode);
        if (target[0] === SLASH) steps.length = 0;
        todo.push(...rawParts(target).reverse());
      }
    }
  }
}

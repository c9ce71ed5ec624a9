/**
 * Unpacks one OCI layer onto the file system of the layers below it, as root on Linux would.
 *
 * The rules are the OCI image spec's ("Applying Changesets"). Where it is silent, they follow containerd and umoci;
 * docs/convert.md has them as a table, with every departure and its reason. In short:
 *
 *   - A member replaces the node that has its name, except that a directory over a directory only takes on the
 *     new attributes. Parents that no layer describes are made, mode 0755, owned by root.
 *   - `.wh.NAME` removes NAME, `.wh..wh..opq` empties its directory; both spare the members of this layer itself,
 *     before or after them in the archive.
 *   - No member can name, link to or write to anything outside the root (layer-path.ts).
 *   - Times of directories are those of their own members: making or removing children changes none of them, because the
 *     file system below has no clock. So no time must be set again at the end.
 *
 * Memory: one piece of file content, and the names this layer unpacks. After an error the file system is incomplete and
 * must be thrown away.
 */
import { ErrorCodes, messageOf, ObdError } from '../errors.js';
import { type Ext4FileSystem, LOST_AND_FOUND, type NodeSpec } from '../ext4/ext4-file-system.js';
import type { Extent } from '../ext4/extent-tree.js';
import { ROOT_INODE } from '../ext4/superblock.js';
import { quoteName, type TarEntry } from '../tar/tar-entry.js';
import type { TarReader } from '../tar/tar-reader.js';
import { attributesOf, deviceOf, parentAttributes, xattrsOf } from './entry-attributes.js';
import { HardLinks } from './hard-links.js';
import { type ResolvedDirectory, ScopedTree, splitName } from './layer-path.js';
import { UnpackedNames } from './unpacked-names.js';

/** One page of a terminal. Warnings of one layer usually have one or two reasons. */
const WARNINGS_MAX = 20;
/** PATH_MAX less its NUL: what symlink(2) takes. */
const LINK_BYTES_MAX = 4095;
const WHITEOUT = Buffer.from('.wh.');
const WHITEOUT_META = Buffer.from('.wh..wh.');
const OPAQUE = Buffer.from('.wh..wh..opq');
const S_IFMT = 0o170000;
const S_IFSOCK = 0o140000;

export interface ApplyOptions {
  /** The layer's name in messages. */
  readonly label: string;
  /**
   * Called for each member that is left out, at most {@link WARNINGS_MAX} times and once more with the number of
   * others.
   */
  readonly warn: (message: string) => void;
  readonly signal?: AbortSignal;
  /** Called for each file: where its content is, and the inode of its directory. */
  readonly onContent?: (directory: number, extents: readonly Extent[]) => void;
}

/** A file without its content. */
interface EmptyFile {
  readonly directory: number;
  readonly inode: number;
}

/**
 * Applies every member of `tar` to `fs`, and flushes neither.
 *
 * @throws {ObdError} `Corrupt` for a layer that contradicts itself or tries to leave the root, `Unsupported` for
 *   members that ext4 or this converter cannot represent, both naming layer, member and offset; errors of the reader
 *   and the file system.
 */
export async function applyLayer(
  fs: Ext4FileSystem,
  tar: TarReader,
  options: ApplyOptions,
): Promise<void> {
  const application = new Application(fs, options);
  for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
    options.signal?.throwIfAborted();
    const file = application.apply(entry);
    if (file === undefined) continue;
    const writer = fs.writer(file.inode);
    const { offset, name } = entry;
    const here = <T>(call: () => T) => application.at(offset, name, call);
    await tar.content({
      write: (chunk) => here(() => writer.write(chunk)),
      hole: (lengthBytes) => here(() => writer.hole(lengthBytes)),
    });
    const extents = here(() => writer.end());
    options.onContent?.(file.directory, extents);
  }
  application.finish();
}

class Application {
  readonly #fs: Ext4FileSystem;
  readonly #options: ApplyOptions;
  readonly #tree: ScopedTree;
  readonly #unpacked: UnpackedNames;
  readonly #links: HardLinks;
  #warnings = 0;

  constructor(fs: Ext4FileSystem, options: ApplyOptions) {
    this.#fs = fs;
    this.#options = options;
    this.#tree = new ScopedTree(fs);
    this.#unpacked = new UnpackedNames(fs);
    this.#links = new HardLinks(fs, this.#unpacked);
    // Every ext4 root has it, and e2fsck reports it if it is missing: no whiteout removes it.
    this.#unpacked.add({ inode: ROOT_INODE, steps: [] }, LOST_AND_FOUND);
  }

  /** Creates the node without its content; returns the file that needs content. */
  apply(entry: TarEntry): EmptyFile | undefined {
    return this.at(entry.offset, entry.name, () => this.#apply(entry));
  }

  finish(): void {
    this.at(undefined, undefined, () => this.#links.settle());
    if (this.#warnings > WARNINGS_MAX) {
      this.#options.warn(
        `${this.#options.label}: ${this.#warnings - WARNINGS_MAX} more like these`,
      );
    }
  }

  /** Runs `call`, and adds the place in the layer to its errors. */
  at<T>(offset: number | undefined, name: Uint8Array | undefined, call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof ObdError)) throw error;
      const { label } = this.#options;
      const member = offset === undefined ? '' : ` at ${offset}, ${quoteName(name as Uint8Array)}`;
      const message = `Cannot apply ${label}${member}: ${messageOf(error)}`;
      const where = offset === undefined ? {} : { offset };
      // The invalid argument came from the layer, not from a user.
      const code = error.code === ErrorCodes.InvalidArgument ? ErrorCodes.Corrupt : error.code;
      throw new ObdError(code, message, { ...error.details, ...where, path: label }, error);
    }
  }

  #apply(entry: TarEntry): EmptyFile | undefined {
    const parts = splitName(entry.name);
    const name = parts.pop();
    if (name === undefined) {
      this.#applyRoot(entry);
      return undefined;
    }
    if (startsWith(name, WHITEOUT)) {
      this.#whiteout(parts, name);
      return undefined;
    }
    if (this.#isSkipped(entry)) return undefined;
    const directory = this.#tree.make(parts, parentAttributes(entry));
    if (entry.kind === 'hardlink') {
      this.#links.add(directory, name, splitName(entry.linkName), entry);
      return undefined;
    }
    const inode = this.#place(directory, name, entry);
    this.#unpacked.add(directory, name);
    return entry.kind === 'file' ? { directory: directory.inode, inode } : undefined;
  }

  #applyRoot(entry: TarEntry): void {
    if (entry.kind !== 'directory') {
      throw new ObdError(ErrorCodes.Corrupt, `it would replace the root by a ${entry.kind}`);
    }
    this.#setAttributes(ROOT_INODE, entry);
  }

  #place(directory: ResolvedDirectory, name: Uint8Array, entry: TarEntry): number {
    const existing = this.#fs.lookup(directory.inode, name);
    if (existing !== undefined) {
      const merges = entry.kind === 'directory' && this.#fs.stat(existing).kind === 'directory';
      if (merges) {
        this.#setAttributes(existing, entry);
        return existing;
      }
      this.#unpacked.remove(directory.inode, name, existing);
    }
    const spec = specOf(entry);
    const inode = this.#fs.create(directory.inode, name, spec, attributesOf(entry));
    const xattrs = this.#xattrs(entry);
    if (xattrs.size > 0) this.#fs.setXattrs(inode, xattrs);
    return inode;
  }

  #setAttributes(inode: number, entry: TarEntry): void {
    this.#fs.setAttributes(inode, attributesOf(entry));
    this.#fs.setXattrs(inode, this.#xattrs(entry));
  }

  #xattrs(entry: TarEntry): Map<string, Uint8Array> {
    return xattrsOf(entry, (name, why) => {
      this.#warn(entry, `xattr ${JSON.stringify(name)} left out: ${why}`);
    });
  }

  #whiteout(parents: readonly Uint8Array[], name: Uint8Array): void {
    const isOpaque = Buffer.compare(name, OPAQUE) === 0;
    // aufs kept its own files under such names (`.wh..wh.plnk`); other programs ignore them.
    if (!isOpaque && startsWith(name, WHITEOUT_META)) return;
    const hidden = name.subarray(WHITEOUT.length);
    if (hidden.length === 0 || /^\.{1,2}$/.test(Buffer.from(hidden).toString('latin1'))) {
      throw new ObdError(ErrorCodes.Corrupt, 'the name it whites out is empty, "." or ".."');
    }
    const directory = this.#tree.find(parents);
    if (directory === undefined) return;
    if (!isOpaque) {
      const inode = this.#fs.lookup(directory.inode, hidden);
      if (inode !== undefined) this.#unpacked.removeOlder(directory.inode, hidden, inode);
      return;
    }
    this.#unpacked.emptyOlder(directory.inode);
  }

  /** Members that an image does not need: sockets, which only work with their listener, and labels. */
  #isSkipped(entry: TarEntry): boolean {
    if (entry.kind === 'file' && (entry.mode & S_IFMT) === S_IFSOCK) {
      this.#warn(entry, 'a socket, left out');
      return true;
    }
    if (entry.kind !== 'other') return false;
    const flag = JSON.stringify(String.fromCharCode(entry.typeflag));
    if (flag !== '"V"') {
      const found = `a member of type ${flag}, which is no kind of file this converter knows`;
      throw new ObdError(ErrorCodes.Unsupported, found);
    }
    this.#warn(entry, 'a volume label, left out');
    return true;
  }

  #warn(entry: TarEntry, what: string): void {
    if (++this.#warnings > WARNINGS_MAX) return;
    this.#options.warn(
      `${this.#options.label} at ${entry.offset}, ${quoteName(entry.name)}: ${what}`,
    );
  }
}

/** @throws {ObdError} */
function specOf(entry: TarEntry): NodeSpec {
  const { kind, linkName } = entry;
  switch (kind) {
    case 'file':
    case 'directory':
    case 'fifo':
      return { kind };
    case 'character':
    case 'block':
      return { kind, ...deviceOf(entry) };
    case 'symlink':
      if (linkName.length === 0) throw new ObdError(ErrorCodes.Corrupt, 'a symlink to nothing');
      if (linkName.length <= LINK_BYTES_MAX) return { kind, target: linkName };
      throw new ObdError(
        ErrorCodes.Unsupported,
        `a symlink to ${linkName.length} bytes, the limit is ${LINK_BYTES_MAX}`,
      );
    default:
      throw new TypeError(`no node for a ${kind}`);
  }
}

function startsWith(name: Uint8Array, prefix: Uint8Array): boolean {
  return Buffer.compare(name.subarray(0, prefix.length), prefix) === 0;
}

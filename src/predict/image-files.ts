/**
 * The files of an image by path, for the rules of the predictor. All work that an image can ask for is bounded here: once a
 * bound is reached, look-ups find nothing and reads are empty, so that rules end by themselves.
 *
 * Symlinks are resolved inside the image, also absolute ones and those that lead above the root.
 */
import type { ImageTree, TreeNode } from './image-tree.js';

/** As Linux has it. */
const SYMLINKS_MAX = 40;
const PATH_BYTES_MAX = 4096;
/** Paths looked up. pandas, with 570 files, takes 2,800. */
const LOOKUPS_MAX = 50_000;
/** Questions of rules, also those whose answer is known. pandas takes 6,000. */
const QUESTIONS_MAX = 200_000;
/** All bytes of files and directories that rules read. pandas takes 15 MiB. */
const READ_BYTES_MAX = 64 << 20;
/** A larger directory is read by no rule: 20,000 names. The largest of Debian's has 4,000. */
const DIRECTORY_BYTES_MAX = 1 << 20;
/** Directories that were just searched are in memory, at least as many as these. */
const RECENT_BYTES_MAX = 1 << 20;

export interface ImageFile extends TreeNode {
  /** Absolute, without symlinks. */
  readonly path: string;
}

export class ImageFiles {
  readonly contentBytes: number;
  readonly #tree: ImageTree;
  readonly #found = new Map<string, ImageFile | undefined>();
  readonly #facts = new Map<string, Promise<unknown>>();
  readonly #recent = new Set<number>();
  #recentBytes = 0;
  #readBytes = 0;
  #questions = 0;

  constructor(tree: ImageTree) {
    this.#tree = tree;
    this.contentBytes = tree.contentBytes;
  }

  /** Whether a bound ended the look-ups or reads. */
  get isExhausted(): boolean {
    return (
      this.#found.size >= LOOKUPS_MAX ||
      this.#readBytes >= READ_BYTES_MAX ||
      this.#questions >= QUESTIONS_MAX
    );
  }

  /** Bytes of files and directories that were read so far. */
  get readBytes(): number {
    return this.#readBytes;
  }

  /**
   * Resolves a path; undefined if it leads to nothing.
   *
   * @param path - Relative ones begin at `directory`.
   */
  async find(path: string, directory = '/'): Promise<ImageFile | undefined> {
    this.#questions++;
    if (path === '' || path.includes('\0') || path.length > PATH_BYTES_MAX) return undefined;
    const absolute = path.startsWith('/') ? path : `${directory}/${path}`;
    if (this.isExhausted) return undefined;
    if (this.#found.has(absolute)) return this.#found.get(absolute);
    const file = await this.#resolve(absolute);
    this.#found.set(absolute, file);
    return file;
  }

  /** As find(), for regular files only. */
  async findFile(path: string, directory = '/'): Promise<ImageFile | undefined> {
    const found = await this.find(path, directory);
    return found?.kind === 'file' ? found : undefined;
  }

  /** The first of `paths` that leads to a regular file. */
  async firstFile(paths: Iterable<string>): Promise<ImageFile | undefined> {
    for (const path of paths) {
      const found = await this.findFile(path);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The names in a directory, sorted by their code units. */
  async list(path: string): Promise<string[]> {
    const found = await this.find(path);
    if (found?.kind !== 'directory' || found.sizeBytes > DIRECTORY_BYTES_MAX) return [];
    if (this.isExhausted) return [];
    this.#readBytes += found.sizeBytes;
    return (await this.#tree.names(found.inode)).sort();
  }

  /** The bytes [offset, offset + length) of a file, as far as it has them. */
  async read(file: ImageFile, offset: number, length: number): Promise<Buffer> {
    const left = Math.min(file.sizeBytes - offset, READ_BYTES_MAX - this.#readBytes);
    const wanted = Math.max(0, Math.min(length, left));
    if (offset < 0 || wanted === 0) return Buffer.alloc(0);
    this.#readBytes += wanted;
    return await this.#tree.read(file.inode, offset, wanted);
  }

  /** Counts bytes that were read before and are searched again as if they were read. */
  spend(bytes: number): void {
    this.#readBytes += bytes;
  }

  /** The beginning of a file as text, a character per byte above ASCII if it is not UTF-8. */
  async text(file: ImageFile, bytesMax: number): Promise<string> {
    return (await this.read(file, 0, bytesMax)).toString();
  }

  /** Computes a fact about the image when it is first asked for. */
  once<T>(name: string, compute: () => Promise<T>): Promise<T> {
    this.#questions++;
    const known = this.#facts.get(name) ?? compute();
    this.#facts.set(name, known);
    return known as Promise<T>;
  }

  async #resolve(absolute: string): Promise<ImageFile | undefined> {
    let inode = this.#tree.root;
    let above: { readonly inode: number; readonly name: string }[] = [];
    const steps = absolute.split('/').reverse();
    let links = 0;
    for (let name = steps.pop(); name !== undefined; name = steps.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        inode = above.pop()?.inode ?? this.#tree.root;
        continue;
      }
      const child = await this.#child(inode, name);
      if (child === undefined) return undefined;
      if (child.kind === 'symlink') {
        if (++links > SYMLINKS_MAX) return undefined;
        const target = await this.#tree.readLink(child.inode);
        if (target.startsWith('/')) {
          inode = this.#tree.root;
          above = [];
        }
        steps.push(...target.split('/').reverse());
        continue;
      }
      if (child.kind !== 'directory' && steps.length > 0) return undefined;
      above.push({ inode, name });
      inode = child.inode;
    }
    const path = `/${above.map(({ name }) => name).join('/')}`;
    return { ...(await this.#tree.stat(inode)), path };
  }

  /** Counts a directory that may have to be read again, as others were since. */
  #search(directory: number, sizeBytes: number): void {
    if (this.#recent.has(directory)) return;
    this.#readBytes += sizeBytes;
    if (this.#recentBytes > RECENT_BYTES_MAX) {
      this.#recent.clear();
      this.#recentBytes = 0;
    }
    this.#recent.add(directory);
    this.#recentBytes += sizeBytes;
  }

  async #child(directory: number, name: string): Promise<TreeNode | undefined> {
    const { sizeBytes } = await this.#tree.stat(directory);
    if (sizeBytes > DIRECTORY_BYTES_MAX) return undefined;
    this.#search(directory, sizeBytes);
    const inode = await this.#tree.child(directory, name);
    return inode === undefined ? undefined : await this.#tree.stat(inode);
  }
}

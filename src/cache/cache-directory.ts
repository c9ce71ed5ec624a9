/**
 * The files of the cache on disk, by key: opening one, and evicting the least recently used.
 *
 *   DIR/lock                     who uses the directory, directory-lock.ts
 *   DIR/blobs/ORIGIN/HEX         the cache file of the blob sha256:HEX of that origin, blob-file.ts
 *   DIR/blobs/ORIGIN/HEX.gone    one being removed
 *
 * The cache reports a file that cannot come from an earlier run, and replaces it by an empty one. It does not
 * touch files of other names. The time of last use is the file's modification time.
 */
import { renameSync } from 'node:fs';
import { chmod, mkdir, open, readdir, rm, stat, utimes } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ErrorCodes, isDiskFull, messageOf, ObdError, systemCode } from '../errors.js';
import { DirectoryLock } from '../io/directory-lock.js';
import { BlobFile } from './blob-file.js';
import { type BlobKey, isDigestName, isOrigin, nameOfDigest } from './blob-key.js';
import { type DurableFile, LocalDurableFile } from './durable-file.js';

const GONE = '.gone';
/** The unit of stat()'s `blocks`, independent of the file system's block size. */
const STAT_BLOCK_BYTES = 512;
/** A layer of 1 TiB has a bitmap of 2 MiB. No registry takes larger ones. */
const BLOB_BYTES_MAX = 2 ** 40;
/** Errors of open() that say nothing about the file: the host lacks something, or the disk fails. */
const NOT_DAMAGE = ['EMFILE', 'ENFILE', 'ENOMEM', 'EIO'];

/** A blob that is not open. */
export interface IdleBlob {
  readonly origin: string;
  readonly digest: string;
  /** On the disk. */
  readonly bytes: number;
  /** When it was last closed. */
  readonly usedAtMs: number;
}

export class CacheDirectory {
  readonly path: string;
  readonly #blobs: string;
  #lock: DirectoryLock;
  readonly #report: (fault: ObdError) => void;
  /** Bytes on disk of the blobs that are not open, by path, least recently used first. */
  readonly #idle = new Map<string, number>();
  #idleBytes = 0;

  private constructor(directory: string, lock: DirectoryLock, report: (fault: ObdError) => void) {
    this.path = directory;
    this.#blobs = join(directory, 'blobs');
    this.#lock = lock;
    this.#report = report;
  }

  /** @throws {ObdError} `Busy` if another process has it; `Io`. */
  static async open(directory: string, report: (fault: ObdError) => void): Promise<CacheDirectory> {
    let lock: DirectoryLock | undefined;
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      lock = await DirectoryLock.acquireSoon(directory);
      const opened = new CacheDirectory(directory, lock, report);
      await opened.#makeBlobs();
      await opened.#scan();
      return opened;
    } catch (error) {
      lock?.release();
      if (error instanceof ObdError) throw error;
      const message = `Cannot use the cache "${directory}": ${messageOf(error)}`;
      throw new ObdError(ErrorCodes.Io, message, { path: directory }, error);
    }
  }

  get idleBytes(): number {
    return this.#idleBytes;
  }

  async #makeBlobs(): Promise<void> {
    await mkdir(this.#blobs, { recursive: true, mode: 0o700 });
    await chmod(this.#blobs, 0o700);
  }

  /** Call it after the directory was removed. The lock on its old file does not protect the new directory. */
  async #makeAgain(): Promise<void> {
    await mkdir(this.path, { recursive: true, mode: 0o700 });
    const lock = DirectoryLock.acquire(this.path);
    this.#lock.release();
    this.#lock = lock;
    await this.#makeBlobs();
  }

  async #scan(): Promise<void> {
    const found: Array<{ path: string; bytes: number; usedAtMs: number }> = [];
    for (const folder of await readdir(this.#blobs, { withFileTypes: true })) {
      if (!folder.isDirectory() || !isOrigin(folder.name)) continue;
      for (const name of await readdir(join(this.#blobs, folder.name))) {
        if (!isDigestName(name.replace(GONE, ''))) continue;
        const path = join(this.#blobs, folder.name, name);
        if (name.endsWith(GONE)) {
          await rm(path, { force: true, recursive: true });
          continue;
        }
        const { blocks, mtimeMs } = await stat(path);
        found.push({ path, bytes: blocks * STAT_BLOCK_BYTES, usedAtMs: mtimeMs });
      }
    }
    found.sort((a, b) => a.usedAtMs - b.usedAtMs);
    for (const { path, bytes } of found) this.#addIdle(path, bytes);
  }

  #addIdle(path: string, bytes: number): void {
    this.#idle.set(path, bytes);
    this.#idleBytes += bytes;
  }

  #removeIdle(path: string): void {
    this.#idleBytes -= this.#idle.get(path) ?? 0;
    this.#idle.delete(path);
  }

  /**
   * Opens or creates the blob's file: an unnamed one where the disk has no room for a name, and in a new directory
   * where the old one was removed.
   *
   * @throws {ObdError} `Unsupported` for a blob that is too large; `NoSpace` where the disk has no room
   *   for a new file; `Io`; `Host` where this process has no descriptor left.
   */
  async acquire(blob: BlobKey): Promise<BlobFile> {
    const { digest, sizeBytes } = blob;
    if (sizeBytes > BLOB_BYTES_MAX) {
      const message = `Cannot cache ${digest}: it has ${sizeBytes} bytes, the limit is ${BLOB_BYTES_MAX}`;
      throw new ObdError(ErrorCodes.Unsupported, message, { digest });
    }
    const path = this.#pathOf(blob);
    try {
      return (await this.#reopen(path, blob)) ?? (await this.#create(path, blob));
    } catch (error) {
      const code = codeOf(error);
      const message = `Cannot open the cache file "${path}": ${messageOf(error)}`;
      throw new ObdError(code, message, { path }, error);
    }
  }

  /**
   * @returns Undefined if there is no file, or an unusable one, which it removes.
   * @throws what open() throws for lack of a descriptor or memory, or if the disk fails; the file stays.
   */
  async #reopen(path: string, blob: BlobKey): Promise<BlobFile | undefined> {
    const idleBytes = this.#idle.get(path);
    this.#removeIdle(path);
    let file: DurableFile | undefined;
    let problem: string;
    try {
      file = await LocalDurableFile.open(path);
      const found = BlobFile.reopen(file, blob);
      if (found instanceof BlobFile) return await withSlots(found);
      problem = found;
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT') return undefined;
      // An open file whose slots cannot be read is damaged: another attempt would fail too.
      if (file === undefined && code !== undefined && NOT_DAMAGE.includes(code)) {
        if (idleBytes !== undefined) this.#addIdle(path, idleBytes);
        throw error;
      }
      problem = messageOf(error);
    }
    await file?.close();
    const message = `Cannot use the cache file "${path}": ${problem}; it starts empty`;
    this.#report(new ObdError(ErrorCodes.Corrupt, message, { path, digest: blob.digest }));
    await rm(path, { force: true, recursive: true });
    return undefined;
  }

  async #create(path: string, blob: BlobKey): Promise<BlobFile> {
    const fileBytes = BlobFile.fileBytes(blob.sizeBytes);
    let file: DurableFile;
    try {
      await this.#makeFolder(dirname(path));
      file = await LocalDurableFile.create(path, fileBytes);
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      file = await LocalDurableFile.createUnnamed(this.#blobs, fileBytes);
    }
    return await withSlots(BlobFile.fresh(file, blob));
  }

  async #makeFolder(path: string): Promise<void> {
    try {
      await mkdir(path, { mode: 0o700 });
    } catch (error) {
      const code = systemCode(error);
      if (code === 'EEXIST') return;
      if (code !== 'ENOENT') throw error;
      await this.#makeAgain();
      await mkdir(path, { recursive: true, mode: 0o700 });
    }
  }

  /** Makes a blob evictable after the caller has closed its file. */
  async release(blob: BlobKey, storedBytes: number): Promise<void> {
    const path = this.#pathOf(blob);
    const now = new Date();
    try {
      // Only the order of eviction after a restart depends on this.
      await utimes(path, now, now);
    } catch (error) {
      // The file never had a name, or has been removed.
      if (systemCode(error) === 'ENOENT') return;
    }
    this.#addIdle(path, storedBytes);
  }

  /**
   * Removes the least recently used blob that is not open.
   * @returns The bytes it had; undefined if there is none.
   */
  async evictOne(): Promise<number | undefined> {
    const [path] = this.#idle.keys();
    return path === undefined ? undefined : await this.#evict(path);
  }

  /** Removes a blob that is not open; does nothing for any other. */
  async evict(blob: Pick<BlobKey, 'origin' | 'digest'>): Promise<void> {
    const path = this.#pathOf(blob);
    if (this.#idle.has(path)) await this.#evict(path);
  }

  async #evict(path: string): Promise<number> {
    const bytes = this.#idle.get(path) ?? 0;
    this.#removeIdle(path);
    try {
      // Renamed at once: acquire() may create an empty file of that name before rm() ends.
      renameSync(path, path + GONE);
      await rm(path + GONE, { force: true, recursive: true });
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return bytes;
      const message = `Cannot evict "${path}": ${messageOf(error)}`;
      this.#report(new ObdError(ErrorCodes.Io, message, { path }, error));
    }
    return bytes;
  }

  /** The size of a blob that has a file here; undefined for any other. */
  async sizeOf(origin: string, digest: string): Promise<number | undefined> {
    if (!isOrigin(origin) || !isDigestName(nameOfDigest(digest))) return undefined;
    const file = await open(this.#pathOf({ origin, digest })).catch(() => undefined);
    if (file === undefined) return undefined;
    try {
      const { size } = await file.stat();
      return await BlobFile.blobBytesOf(size, (target, offset) =>
        file.read(target, 0, target.length, offset),
      );
    } finally {
      await file.close();
    }
  }

  /** The blobs that are not open, least recently used first. */
  async idleBlobs(): Promise<IdleBlob[]> {
    return await Promise.all(
      [...this.#idle].map(async ([path, bytes]) => {
        const digest = `sha256:${basename(path)}`;
        const usedAtMs = await stat(path).then(
          ({ mtimeMs }) => mtimeMs,
          () => 0,
        );
        return { origin: basename(dirname(path)), digest, bytes, usedAtMs };
      }),
    );
  }

  close(): void {
    this.#lock.release();
  }

  #pathOf({ origin, digest }: Pick<BlobKey, 'origin' | 'digest'>): string {
    return join(this.#blobs, origin, nameOfDigest(digest));
  }
}

/** Reserves the slots unless the disk is full; storing tries again. */
async function withSlots(file: BlobFile): Promise<BlobFile> {
  await file.reserveSlots().catch(() => {});
  return file;
}

function codeOf(error: unknown): ObdError['code'] {
  if (isDiskFull(error)) return ErrorCodes.NoSpace;
  const isHost = ['EMFILE', 'ENFILE'].includes(systemCode(error) ?? '');
  return isHost ? ErrorCodes.Host : ErrorCodes.Io;
}

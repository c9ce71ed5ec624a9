/**
 * The local cache of blobs that are slow to get: later reads, also after a restart, come from this disk.
 *
 * A blob's bytes come from a BlobSource: a registry, or a decoder of another file. All blobs share the budget.
 *
 *   BlobSource x n          openBlob()            BlobReader x n, on any thread
 *        ^                      |                      |  hits: preadv2 of the file, no message
 *        | attempt()            v                      |  misses: BlobLink
 *        |                  BlobHandle  <--------------+  one handle per reader: its source, its stats
 *        |                      |
 *        |                  SharedBlob ------------ BlobFile      bytes and trailer on the disk, ChunkSet
 *        |                      |             `---- OverflowChunks  chunks without space on the disk
 *        +---------------- BlobFetches ------------ FetchScheduler  demand before prefetch, for all blobs
 *
 *   BlobKey   origin, digest and size: which blob this is, and the name of its file
 *   BlobShare what a reader on another thread needs of a handle
 *
 * Guarantees:
 *   - The cache returns only bytes that a source of that key sent. It validates state that a crash, a full disk or
 *     damage left (blob-file.ts). The formats detect damaged bytes and invalidate them.
 *   - Origins share no bytes, because a part of a blob does not prove its digest. Otherwise an attacker whose image
 *     runs on this host could put bytes into the base layer of every other image.
 *   - No read fails because the cache cannot store: chunks without space stay in memory until they are read.
 *
 * Room: at most `capacityBytes` of chunks are on the disk, and `reserveBytes` of it stay free. Beyond either, the cache
 * evicts chunks (cache-room.ts), also when others fill the disk. Where it can evict nothing, it stores nothing more.
 *
 * State is saved SAVE_DELAY_MS after the first change, one blob at a time, and when a blob is closed: a
 * killed process refetches the chunks of that time, a loss of power costs a little more.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import type { BlobFile } from './blob-file.js';
import { BlobHandle } from './blob-handle.js';
import { type BlobKey, checkKey, keyText } from './blob-key.js';
import type { BlobSource } from './blob-source.js';
import { CacheDirectory } from './cache-directory.js';
import { CacheRoom } from './cache-room.js';
import { DiskSpace, defaultCapacity } from './disk-space.js';
import { FetchScheduler } from './fetch-scheduler.js';
import type { ImageReads } from './image-reads.js';
import { OverflowChunks } from './overflow-chunks.js';
import { type CacheServices, SharedBlob } from './shared-blob.js';
import { type OutageLog, SourceOutages } from './source-outages.js';
import { SpareSpace } from './spare-space.js';

/** An fdatasync per blob that is being filled, this often: less than the kernel itself writes back. */
const SAVE_DELAY_MS = 1000;
/** How soon the cache makes room for others that fill the disk. */
const SHRINK_MS = 2000;

/**
 * How long a blob that is open with another size is waited for: an image with a wrong size is being probed, and the registry
 * will refuse it.
 */
const OTHER_SIZE_MS = 2_000;
const OTHER_SIZE_PAUSE_MS = 50;

const SILENT: OutageLog = { unavailable: () => {}, recovered: () => {}, left: () => {} };

export interface BlockCacheOptions {
  /** Limit for chunks on the disk; by default {@link defaultCapacity}. */
  readonly capacityBytes: number | undefined;
  /** Bytes of the file system to leave free; by default max(5 %, 1 GiB), and half of it at most. */
  readonly reserveBytes: number | undefined;
  /** Logs survived faults: damaged state, a full disk, bytes fetched again. */
  readonly report?: (fault: ObdError) => void;
  /** Logs origins that mounted disks wait for. */
  readonly outageLog?: OutageLog;
  /** Called when storing works again after report() of a full disk. */
  readonly reportRoom?: () => void;
}

/** A blob that is open or being opened. */
interface Entry {
  handles: number;
  readonly opened: Promise<SharedBlob>;
}

export class BlockCache {
  readonly #directory: CacheDirectory;
  readonly #room: CacheRoom;
  readonly #shrinkTimer: NodeJS.Timeout;
  readonly #report: (fault: ObdError) => void;
  readonly #services: CacheServices;
  readonly #entries = new Map<string, Entry>();
  readonly #open = new Set<SharedBlob>();
  /** Blobs without a handle whose file is being closed. */
  readonly #closing = new Map<string, Promise<void>>();
  readonly #handles = new Set<BlobHandle>();
  readonly #unsaved = new Set<SharedBlob>();
  #isFull = false;
  readonly #spare: SpareSpace;
  #hasSpare = false;
  #shrinking: Promise<void> | undefined;
  #saveTimer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;

  private constructor(directory: CacheDirectory, disk: DiskSpace, options: BlockCacheOptions) {
    this.#directory = directory;
    this.#spare = new SpareSpace(join(directory.path, 'spare'), disk.totalBytes);
    const capacityBytes = options.capacityBytes ?? defaultCapacity(disk.totalBytes);
    this.#room = new CacheRoom(directory, disk, capacityBytes, this.#open);
    this.#report = options.report ?? (() => {});
    const { reportRoom = () => {} } = options;
    this.#shrinkTimer = setInterval(() => this.#shrinkSoon(), SHRINK_MS).unref();
    this.#services = {
      scheduler: new FetchScheduler(),
      outages: new SourceOutages(options.outageLog ?? SILENT),
      overflow: new OverflowChunks(),
      room: this.#room,
      full: (fault) => {
        if (!this.#isFull) this.#report(fault);
        this.#isFull = true;
      },
      stored: () => {
        if (this.#isFull) reportRoom();
        this.#isFull = false;
      },
      changed: (blob) => this.#saveSoon(blob),
      report: this.#report,
    };
  }

  /**
   * Opens the cache in `directory`, creating it if need be, and locks it against other processes until close().
   * @throws {ObdError} `Busy` if another process does; `Io`.
   */
  static async open(directory: string, options: BlockCacheOptions): Promise<BlockCache> {
    const opened = await CacheDirectory.open(directory, options.report ?? (() => {}));
    try {
      const disk = await DiskSpace.of(directory, options.reserveBytes);
      const cache = new BlockCache(opened, disk, options);
      // The limits may be less than they were, and others may have filled the disk.
      await cache.#shrink();
      return cache;
    } catch (error) {
      opened.close();
      const message = `Cannot use the cache "${directory}": ${messageOf(error)}`;
      throw new ObdError(ErrorCodes.Io, message, { path: directory }, error);
    }
  }

  /**
   * Opens a blob that is fetched from `source` as it is read. All opens of one key share its cached bytes and its
   * fetches; each fetches from its own source.
   *
   * @param image - The reads of the image that it is opened for.
   * @throws {ObdError} `InvalidArgument` for an invalid key, or another size than that of handles that stay open;
   *   `Unsupported` for a blob larger than 1 TiB; `Io`.
   */
  async openBlob(source: BlobSource, image?: ImageReads): Promise<BlobHandle> {
    for (const untilMs = performance.now() + OTHER_SIZE_MS; ; ) {
      const opened = await this.#openHandle(source, image);
      if (opened instanceof BlobHandle) return opened;
      if (performance.now() >= untilMs) {
        const { digest, sizeBytes } = source.key;
        const message = `Cannot open ${source.label}: it has ${sizeBytes} bytes here and ${opened.otherBytes} where it is open already`;
        throw new ObdError(ErrorCodes.InvalidArgument, message, { digest });
      }
      await sleep(OTHER_SIZE_PAUSE_MS);
    }
  }

  /** @returns The handle, or the size of the blob as it is open. @throws {ObdError} as openBlob(). */
  async #openHandle(
    source: BlobSource,
    image: ImageReads | undefined,
  ): Promise<BlobHandle | { readonly otherBytes: number }> {
    if (this.#closed !== undefined) throw new TypeError('the cache is closed');
    const { key, label } = source;
    checkKey(key, label);
    const entry = this.#entryOf(key);
    entry.handles++;
    try {
      const blob = await entry.opened;
      if (blob.sizeBytes !== key.sizeBytes) {
        // Waits for the fetches of the other handles, and closes the blob if none of them is open any more.
        await this.#release(key, entry);
        return { otherBytes: blob.sizeBytes };
      }
      if (this.#closed !== undefined) throw new TypeError('the cache is closed');
      const handle = new BlobHandle(blob, this.#services.overflow, source, image, () => {
        this.#handles.delete(handle);
        void this.#release(key, entry);
      });
      this.#handles.add(handle);
      return handle;
    } catch (error) {
      await this.#release(key, entry);
      throw error;
    }
  }

  /** Closes all handles, saves the state and unlocks the directory. Idempotent. */
  async close(): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  async #close(): Promise<void> {
    for (const handle of this.#handles) handle.close();
    while (this.#entries.size > 0) {
      await Promise.all([...this.#entries].map(([text, entry]) => this.#settle(text, entry)));
    }
    await Promise.all(this.#closing.values());
    clearTimeout(this.#saveTimer);
    clearInterval(this.#shrinkTimer);
    await this.#saving;
    await this.#shrinking;
    this.#directory.close();
  }

  #entryOf(key: BlobKey): Entry {
    const found = this.#entries.get(keyText(key));
    if (found !== undefined) return found;
    const entry = { handles: 0, opened: this.#openShared(key) };
    this.#entries.set(keyText(key), entry);
    return entry;
  }

  async #openShared(key: BlobKey): Promise<SharedBlob> {
    await this.#closing.get(keyText(key));
    let file: BlobFile | undefined;
    try {
      file = await this.#directory.acquire(key);
    } catch (error) {
      // An unusable cache file costs requests and fails no image.
      const isSurvived = hasCode(error, ErrorCodes.NoSpace) || hasCode(error, ErrorCodes.Io);
      if (!isSurvived) throw error;
      this.#services.full(error);
    }
    const blob = new SharedBlob(this.#services, key, file);
    this.#open.add(blob);
    return blob;
  }

  async #release(key: BlobKey, entry: Entry): Promise<void> {
    entry.handles--;
    await this.#settle(keyText(key), entry);
  }

  /** Closes the blob if it has no handle, and gets none while its fetches end and its state is saved. */
  async #settle(text: string, entry: Entry): Promise<void> {
    const isOver = () => entry.handles === 0 && this.#entries.get(text) === entry;
    let blob: SharedBlob;
    try {
      blob = await entry.opened;
    } catch {
      // openBlob() has rejected for every caller.
      if (isOver()) this.#entries.delete(text);
      return;
    }
    await blob.fetches.idle();
    if (!isOver()) return;
    if (this.#unsaved.delete(blob)) await blob.save();
    if (!isOver()) return;
    this.#entries.delete(text);
    this.#open.delete(blob);
    const closing = blob.close().then(() => this.#directory.release(blob.key, blob.storedBytes));
    this.#closing.set(text, closing);
    await closing;
    if (this.#closing.get(text) === closing) this.#closing.delete(text);
  }

  /** The blobs of the cache, those in use first. */
  async list() {
    const inUse = [...this.#open].map(({ key, storedBytes }) => {
      const { origin, digest } = key;
      return { origin, digest, cachedBytes: storedBytes, inUse: true, usedAtMs: 0 };
    });
    const idle = (await this.#directory.idleBlobs()).map((blob) => {
      const { origin, digest, bytes: cachedBytes, usedAtMs } = blob;
      return { origin, digest, cachedBytes, inUse: false, usedAtMs: Math.round(usedAtMs) };
    });
    const { capacityBytes } = this.#room;
    const diskFreeBytes = Math.max(0, -(await this.#room.missingBytes()));
    return { blobs: [...inUse, ...idle.toReversed()], capacityBytes, diskFreeBytes };
  }

  /** The key of a blob in the cache; undefined for any other. */
  async keyOf(origin: string, digest: string): Promise<BlobKey | undefined> {
    for (const { key } of this.#open) {
      if (key.origin === origin && key.digest === digest) return key;
    }
    const sizeBytes = await this.#directory.sizeOf(origin, digest);
    return sizeBytes === undefined ? undefined : { origin, digest, sizeBytes };
  }

  /** Removes a blob that is not open; does nothing for any other. Another size may have its name then. */
  async remove(key: BlobKey): Promise<void> {
    await this.#closing.get(keyText(key));
    await this.#directory.evict(key);
  }

  /** Removes the blobs that are not open. @returns How many, and the bytes they had on the disk. */
  async prune(): Promise<{ readonly blobs: number; readonly freedBytes: number }> {
    return await this.#room.evictIdle();
  }

  get capacityBytes(): number {
    return this.#room.capacityBytes;
  }

  /** Whether `bytes` that no read asked for have room without evicting chunks of open blobs. */
  async fitsUnasked(bytes: number): Promise<boolean> {
    return await this.#room.fitsUnasked(bytes);
  }

  /** Makes room on the disk for the daemon's own files. @returns Whether it could. */
  async makeRoom(): Promise<boolean> {
    return (await this.#room.evict(CHUNK_BYTES)) > 0 || (await this.#spare.spend());
  }

  #shrinkSoon(): void {
    this.#shrinking ??= this.#shrink().finally(() => {
      this.#shrinking = undefined;
    });
  }

  async #shrink(): Promise<void> {
    const answer = await this.#room.shrink();
    // At the start even below the reserve: the spare space is what lets the daemon work on a full disk.
    if (answer === 'now' || !this.#hasSpare) await this.#spare.fill();
    this.#hasSpare = true;
  }

  #saveSoon(blob: SharedBlob): void {
    this.#unsaved.add(blob);
    this.#saveTimer ??= setTimeout(() => {
      this.#saving = this.#saveAll().finally(() => {
        this.#saveTimer = undefined;
        const [more] = this.#unsaved;
        if (more !== undefined && this.#closed === undefined) this.#saveSoon(more);
      });
    }, SAVE_DELAY_MS).unref();
  }

  async #saveAll(): Promise<void> {
    for (const blob of [...this.#unsaved]) {
      if (this.#unsaved.delete(blob)) await blob.save();
    }
  }
}

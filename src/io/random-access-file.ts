/**
 * The only way this project reads bytes at rest: a local file, a cached remote blob, a decompressed ZFile
 * and a whole stack of layers alike. Formats wrap one of these and are one.
 *
 * Reading is split in two so that the common case costs nothing: tryRead() answers in the same tick, with no promise
 * and no allocation, if it need not wait for a disk or a registry. Otherwise it returns false, and load() brings the bytes into
 * memory. A caller therefore does
 *
 *     while (!file.tryRead(target, offset)) await file.load(offset, target.length);
 *
 * which readFully() does for it, with a bound on the number of turns.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';
import {
  addLastingCorrupt,
  blockOf,
  dropLastingCorrupt,
  isLastingCorrupt,
} from './corrupt-blocks.js';

/** Chunk i of a file is its bytes [i × CHUNK_BYTES, (i + 1) × CHUNK_BYTES): what a cache stores or evicts at once. */
export const CHUNK_BYTES = 64 * 1024;

/** A range of a blob that is fetched as it is read. In bytes. */
export interface StoredRange {
  readonly blob: RandomAccessFile;
  readonly offset: number;
  readonly length: number;
}

export interface RandomAccessFile {
  /** Its name in error messages: a path, or a digest and its registry. */
  readonly label: string;
  /** Bytes; a safe integer, checked when it was opened. It never changes. */
  readonly sizeBytes: number;

  /**
   * Fills the whole of `target` from `offset` (bytes), now, and returns true. Returns false if some of those bytes are
   * not in memory: they are still in the registry, or on a disk here; `target` then has unspecified content.
   *
   * @throws {ObdError} `Corrupt` where stored bytes fail a check (nothing unchecked is ever returned), `Io`
   *   where the read itself fails. A range outside [0, sizeBytes] is a RangeError: a bug in the caller.
   */
  tryRead(target: Uint8Array, offset: number): boolean;

  /**
   * Resolves once [offset, offset + length) is in memory, so that tryRead() can answer.
   *
   * @param deadlineMs - Until then, on the clock of performance.now(), every failure to get the bytes is retried: for a
   *   read that cannot be repeated. Undefined: fails as soon as a retry cannot help.
   * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`, `NoSpace`.
   */
  load(offset: number, length: number, deadlineMs?: number): Promise<void>;

  /**
   * Drops the local copies of the bytes that [offset, offset + length) is made from, because they failed a
   * check further up. Returns false if no better copy exists (a plain local file).
   */
  invalidate(offset: number, length: number): boolean;

  /**
   * A number that is another one after stored bytes of chunk `chunk` were replaced, for instance evicted and fetched
   * again; 0 for a chunk that is not stored, of which each read may get other bytes. Absent if the bytes never change.
   */
  versionOf?(chunk: number): number;

  /**
   * The ranges of fetched blobs that a read of [offset, offset + length) needs. Absent if it needs none: everything is
   * on this machine.
   */
  storedRanges?(offset: number, length: number): readonly StoredRange[];

  /** Gives back descriptors and memory. Idempotent; reading afterwards is a bug. */
  close(): void;
}

/**
 * A loaded range can be evicted before it is read. After so many times a read without a deadline fails, and one with a
 * deadline pauses before each further load.
 */
const LOAD_TURNS_MAX = 8;
const EVICTED_PAUSE_MS = 20;
/** Copies that fail their check are refetched this often before the read fails with `Corrupt`. */
export const REFETCHES_MAX = 3;
/** The same for an index, which can be large, while an image is opened: enough to leave two bad mirrors. */
export const INDEX_REFETCHES_MAX = 2;
/**
 * Before a refetch that has a deadline: none at first, then doubled, to outlive a server that damages its answers. Nothing
 * ends a pause, and detach() waits for the device's reads, so pauses stay short.
 */
const REFETCH_PAUSE_MS = 100;
const REFETCH_PAUSE_MS_MAX = 1_000;

/** For a block that has failed its check for a whole deadline before. */
const REFETCH_MS_LASTING = 10_000;

/**
 * Fills `target` from `offset`, fetching what is not local and refetching what fails a check, both a
 * bounded number of times; of a disk with a `readWaitMs`, for so long, or REFETCH_MS_LASTING where that was in vain before.
 *
 * @param askedMs - From when that time counts, on the clock of performance.now().
 * @throws {ObdError} what load() and tryRead() throw; `Corrupt` only after {@link REFETCHES_MAX} refetches or that time.
 */
export async function readFully(
  file: RandomAccessFile & { readonly readWaitMs?: number | undefined },
  target: Uint8Array,
  offset: number,
  askedMs = performance.now(),
): Promise<void> {
  const { readWaitMs } = file;
  const deadlineMs = readWaitMs === undefined ? undefined : askedMs + readWaitMs;
  let refetching: Refetching | undefined;
  for (let turn = 0; ; turn++) {
    if (turn - (refetching?.refetches ?? 0) >= LOAD_TURNS_MAX) {
      if (performance.now() >= (deadlineMs ?? 0)) throw evicted(file, offset, target.length);
      await sleep(EVICTED_PAUSE_MS);
    }
    try {
      if (file.tryRead(target, offset)) {
        refetching?.succeeded();
        return;
      }
    } catch (error) {
      const corrupt = error instanceof ObdError && error.code === ErrorCodes.Corrupt;
      if (!corrupt) throw error;
      refetching ??= new Refetching(file, deadlineMs, readWaitMs);
      if (!(await refetching.mayGoOn(blockOf(error, offset)))) throw error;
      if (!file.invalidate(offset, target.length)) throw error;
      refetching.refetches++;
    }
    await file.load(offset, target.length, deadlineMs);
  }
}

function evicted({ label }: RandomAccessFile, offset: number, length: number): ObdError {
  return new ObdError(
    ErrorCodes.NoSpace,
    `Cannot read ${label}: bytes were evicted from cache or memory before use, ${LOAD_TURNS_MAX} times and more; give the cache more room, or the host more memory`,
    { path: label, offset, length },
  );
}

/** The refetches of one read after failed checks. */
class Refetching {
  refetches = 0;
  readonly #file: RandomAccessFile;
  readonly #deadlineMs: number | undefined;
  readonly #lastingDeadlineMs: number;
  readonly #blocks = new Set<string>();

  constructor(file: RandomAccessFile, deadlineMs: number | undefined, waitMs = 0) {
    this.#file = file;
    this.#deadlineMs = deadlineMs;
    this.#lastingDeadlineMs = (deadlineMs ?? 0) - Math.max(0, waitMs - REFETCH_MS_LASTING);
  }

  /** Pauses before the next refetch, if there may be one. */
  async mayGoOn(block: string): Promise<boolean> {
    if (this.#deadlineMs === undefined) return this.refetches < REFETCHES_MAX;
    const isLasting = isLastingCorrupt(this.#file, block);
    const untilMs = isLasting ? this.#lastingDeadlineMs : this.#deadlineMs;
    this.#blocks.add(block);
    if (this.refetches === 0) return true;
    const pauseMs = Math.min(REFETCH_PAUSE_MS * 2 ** (this.refetches - 1), REFETCH_PAUSE_MS_MAX);
    const leftMs = untilMs - performance.now();
    if (leftMs > 0) await sleep(Math.min(pauseMs, leftMs));
    if (leftMs > pauseMs) return true;
    addLastingCorrupt(this.#file, block);
    return false;
  }

  succeeded(): void {
    for (const block of this.#blocks) dropLastingCorrupt(this.#file, block);
  }
}

/**
 * The only way this project reads bytes at rest: a local file, a cached remote blob, a decompressed ZFile
 * and a whole stack of layers alike. Formats wrap one of these and are one.
 *
 * Reading is split in two so that the common case costs nothing: readLocal() answers in the same tick,
 * with no promise and no allocation, whenever the bytes are on this machine; only when it says "not here"
 * does anyone pay for load(). A caller therefore does
 *
 *     while (!file.readLocal(target, offset)) await file.load(offset, target.length);
 *
 * which readFully() does for it, with a bound on the number of turns.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';

export interface RandomAccessFile {
  /** What to call it in an error message: a path, or a digest and its registry. */
  readonly label: string;
  /** Bytes; a safe integer, checked when it was opened. It never changes. */
  readonly sizeBytes: number;

  /**
   * Fills the whole of `target` from `offset` (bytes), now, and returns true; or returns false because some
   * of those bytes are not on this machine yet, leaving `target` with unspecified content.
   *
   * @throws {ObdError} `Corrupt` where stored bytes fail a check (nothing unchecked is ever returned), `Io`
   *   where the read itself fails. A range outside [0, sizeBytes] is a RangeError: a bug in the caller.
   */
  readLocal(target: Uint8Array, offset: number): boolean;

  /**
   * Resolves once [offset, offset + length) is on this machine, so that readLocal() can answer.
   *
   * @param deadlineMs - Until then, on the clock of performance.now(), every failure to get the bytes is tried again: for
   *   a read that cannot be repeated. Undefined: fails as soon as it is known that asking again is of no use.
   * @throws {ObdError} `Unavailable`, `Unauthorized`, `NotFound`, `Registry`, `NoSpace`.
   */
  load(offset: number, length: number, deadlineMs?: number): Promise<void>;

  /**
   * Drops the local copies of the bytes that [offset, offset + length) is made from, because they failed a
   * check further up. Returns false where there is no better copy to be had (a plain local file).
   */
  forget(offset: number, length: number): boolean;

  /** Gives back descriptors and memory. Idempotent; reading afterwards is a bug. */
  close(): void;
}

/** A loaded range can be evicted before it is read; after this many times the disk is too small. */
const LOAD_TURNS_MAX = 8;
/** Copies that fail their check are refetched this often before the error is believed. */
export const REFETCHES_MAX = 3;
/** Before a refetch that has a deadline: none at first, then doubled, to outlive a server that damages what it sends. */
const REFETCH_PAUSE_MS = 100;
const REFETCH_PAUSE_MS_MAX = 5_000;

/**
 * Fills `target` from `offset`, fetching what is not local and refetching what fails a check, both a
 * bounded number of times; of a disk with a `readWaitMs`, for so long.
 *
 * @throws {ObdError} what load() and readLocal() throw; `Corrupt` only after {@link REFETCHES_MAX} refetches or that time.
 */
export async function readFully(
  file: RandomAccessFile & { readonly readWaitMs?: number | undefined },
  target: Uint8Array,
  offset: number,
): Promise<void> {
  const { readWaitMs } = file;
  const deadlineMs = readWaitMs === undefined ? undefined : performance.now() + readWaitMs;
  let refetches = 0;
  for (let turn = 0; turn - refetches < LOAD_TURNS_MAX; turn++) {
    try {
      if (file.readLocal(target, offset)) return;
    } catch (error) {
      const corrupt = error instanceof ObdError && error.code === ErrorCodes.Corrupt;
      if (!corrupt || !(await mayRefetch(refetches, deadlineMs))) throw error;
      if (!file.forget(offset, target.length)) throw error;
      refetches++;
    }
    await file.load(offset, target.length, deadlineMs);
  }
  throw new ObdError(
    ErrorCodes.NoSpace,
    `Cannot read ${file.label}: bytes fetched were evicted before use, ${LOAD_TURNS_MAX} times; give the cache more room`,
    { path: file.label, offset, length: target.length },
  );
}

/** Pauses before the next refetch, if there may be one. */
async function mayRefetch(refetches: number, deadlineMs: number | undefined): Promise<boolean> {
  if (deadlineMs === undefined) return refetches < REFETCHES_MAX;
  if (refetches === 0) return true;
  const pauseMs = Math.min(REFETCH_PAUSE_MS * 2 ** (refetches - 1), REFETCH_PAUSE_MS_MAX);
  const leftMs = deadlineMs - performance.now();
  if (leftMs <= 0) return false;
  await sleep(Math.min(pauseMs, leftMs));
  return true;
}

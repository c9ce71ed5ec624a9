/**
 * Fetches the rest of images in the background, so that their registry is no longer needed.
 *
 *   waiting    the delay after the attach is not over, or other images come first
 *   filling
 *   full       the cache has no room for more: looked at again after FULL_PAUSE_MS, if the job is to last
 *   failing    the registry does not give the bytes, or wrong ones: tried again after a pause
 *   complete   everything was stored, and the digest of each blob that something was fetched of is right. Looked at again after
 *              COMPLETE_PAUSE_MS if it is to last: chunks may have been evicted since
 *
 * Guarantees:
 *   - No range is requested while a read of a device waits for bytes, or has within `idleMs`. One range is in flight at a
 *     time, for all images; its size follows the link, so that a read that comes now waits for RANGE_MS or so.
 *   - Nothing of an open blob is evicted for it. Blobs that are not open may be, as for any fetch.
 *   - Images are filled in the order in which they came. An image that fails, or finds no room, goes behind the next one.
 *
 * The state is what the cache holds, so a restarted daemon continues where the last one ended.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type BlobHandle, statsOf } from '../cache/blob-handle.js';
import type { BlobSource } from '../cache/blob-source.js';
import type { BlockCache } from '../cache/block-cache.js';
import { ErrorCodes, hasCode, messageOf, ObdError } from '../errors.js';
import { checkHandle } from './cache-check.js';
import type { DemandWatch } from './demand-watch.js';

const RANGE_BYTES_MIN = 128 * 1024;
const RANGE_BYTES_MAX = 4 << 20;
const RANGE_BYTES_FIRST = 256 * 1024;
/** A range that came in less makes the next one twice as large; one that took twice as long halves it. The wait for an answer is left out. */
const RANGE_MS = 50;
/** The shortest time of a range counts as that wait; it grows so much with each range, as a link may change. */
const WAIT_GROWTH = 1.1;
/** A range that takes longer counts as a failure. */
const RANGE_MS_MAX = 10_000;
const FAILURE_PAUSE_MS = 1_000;
const FAILURE_PAUSE_MS_MAX = 60_000;
/** A blob that fails its digest is fetched again as a whole: the pauses before that grow faster, and up to a day. */
const WRONG_PAUSE_GROWTH = 4;
const WRONG_PAUSE_MS_MAX = 24 * 60 * 60_000;
const FULL_PAUSE_MS = 30_000;
const COMPLETE_PAUSE_MS = 60_000;

type FillState = 'waiting' | 'filling' | 'full' | 'failing' | 'complete';

/** The image of a device, or one that is fetched ahead of its first start. */
export interface FillJob {
  readonly id: string;
  readonly sources: readonly BlobSource[];
  readonly delayMs: number;
  /** How long no read may have waited for a registry before a range is requested. */
  readonly idleMs: number;
  /** Whether what is evicted later is fetched again, until the job is removed. */
  readonly isLasting: boolean;
}

export interface FillLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

interface Job extends FillJob {
  state: FillState;
  problem: string;
  failures: number;
  /** How often in a row a whole blob failed its digest. */
  timesWrong: number;
  notBeforeMs: number;
  readonly startedMs: number;
  readonly stop: AbortController;
  /** Open while the job is filling. */
  handles: BlobHandle[];
  fetchedBytes: number;
  /** The cached bytes of all blobs, when they were last looked at. */
  cachedBytes: number;
}

/** A job as clients see it. */
export interface FillProgress {
  readonly state: FillState;
  /** Empty unless the job is full or failing. */
  readonly problem: string;
  readonly totalBytes: number;
  readonly cachedBytes: number;
}

export class BackgroundFill {
  readonly #cache: Pick<BlockCache, 'openBlob' | 'fitsUnasked'>;
  readonly #demand: DemandWatch;
  readonly #rate: number | undefined;
  readonly #log: FillLog;
  readonly #jobs = new Map<string, Job>();
  #rangeBytes = RANGE_BYTES_FIRST;
  #waitMs = Number.POSITIVE_INFINITY;
  #wake = new AbortController();
  #running: Promise<void> | undefined;

  /** @param rate - Bytes per second; undefined for no limit. */
  constructor(
    cache: Pick<BlockCache, 'openBlob' | 'fitsUnasked'>,
    demand: DemandWatch,
    rate: number | undefined,
    log: FillLog,
  ) {
    this.#cache = cache;
    this.#demand = demand;
    this.#rate = rate;
    this.#log = log;
  }

  /** Replaces a job of the same id. */
  add(job: FillJob): void {
    this.remove(job.id);
    const startedMs = performance.now();
    this.#jobs.set(job.id, {
      ...job,
      state: 'waiting',
      problem: '',
      failures: 0,
      timesWrong: 0,
      notBeforeMs: startedMs + job.delayMs,
      startedMs,
      stop: new AbortController(),
      handles: [],
      fetchedBytes: 0,
      cachedBytes: 0,
    });
    this.#wake.abort();
    this.#start();
  }

  /** Ends the job and its fetch in flight. Does nothing for an unknown id. */
  remove(id: string): void {
    const job = this.#jobs.get(id);
    if (job === undefined) return;
    this.#jobs.delete(id);
    job.stop.abort();
    closeHandles(job);
  }

  /** Undefined for an unknown id. */
  progressOf(id: string): FillProgress | undefined {
    const job = this.#jobs.get(id);
    if (job === undefined) return undefined;
    const { state, problem, sources, cachedBytes } = job;
    const totalBytes = sources.reduce((sum, { key }) => sum + key.sizeBytes, 0);
    return { state, problem, totalBytes, cachedBytes };
  }

  /** Ends all jobs. */
  async close(): Promise<void> {
    for (const id of [...this.#jobs.keys()]) this.remove(id);
    this.#wake.abort();
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // One may have come as the last one ended.
      if (this.#next() !== undefined) this.#start();
    });
  }

  async #run(): Promise<void> {
    for (let job = this.#next(); job !== undefined; job = this.#next()) {
      const pauseMs = job.notBeforeMs - performance.now();
      if (pauseMs > 0) await this.#pause(pauseMs);
      else await this.#step(job);
    }
  }

  /** The job whose turn is first. */
  #next(): Job | undefined {
    let next: Job | undefined;
    const nowMs = performance.now();
    for (const job of this.#jobs.values()) {
      if ((job.state === 'complete' || job.state === 'full') && !job.isLasting) continue;
      if (job.notBeforeMs <= nowMs) return job;
      if (next === undefined || job.notBeforeMs < next.notBeforeMs) next = job;
    }
    return next;
  }

  /** Ends early when a job comes. */
  async #pause(ms: number): Promise<void> {
    this.#wake = new AbortController();
    const { signal } = this.#wake;
    await sleep(Math.ceil(ms), undefined, { signal, ref: false }).catch(() => {});
  }

  async #step(job: Job): Promise<void> {
    const { signal } = job.stop;
    try {
      await this.#demand.idle(job.idleMs, signal);
      if (job.handles.length === 0) await this.#open(job);
      signal.throwIfAborted();
      job.cachedBytes = statsOf(job.handles).cachedBytes;
      const found = firstMissing(job.handles, this.#rangeBytes);
      if (found === undefined) await this.#complete(job);
      else if (await this.#cache.fitsUnasked(found.length)) await this.#fetch(job, found);
      else this.#full(job);
    } catch (error) {
      if (!signal.aborted) this.#failed(job, error);
    }
  }

  async #open(job: Job): Promise<void> {
    for (const source of job.sources) {
      const handle = await this.#cache.openBlob(source);
      job.handles.push(handle);
      // Removed meanwhile.
      if (job.stop.signal.aborted) return closeHandles(job);
    }
  }

  async #fetch(job: Job, { handle, offset, length }: MissingRange): Promise<void> {
    const { signal } = job.stop;
    job.state = 'filling';
    const startedMs = performance.now();
    const late = new AbortController();
    const limit = sleep(RANGE_MS_MAX, undefined, { signal: late.signal, ref: false });
    const fetching = handle.fetch(offset, length, { urgency: 'background', waitMs: undefined });
    try {
      const tooLate = () => {
        this.#rangeBytes = RANGE_BYTES_MIN;
        throw tooSlow(handle);
      };
      await Promise.race([fetching, limit.then(tooLate)]);
    } finally {
      late.abort();
      // One of the two is not waited for any more.
      fetching.catch(() => {});
      limit.catch(() => {});
    }
    if (signal.aborted) return;
    const ms = performance.now() - startedMs;
    job.failures = 0;
    job.problem = '';
    job.fetchedBytes += length;
    // The disk was full after all, or a check failed at once.
    if (handle.missingFrom(offset, 1)?.offset === offset) return this.#full(job);
    this.#waitMs = Math.min(this.#waitMs * WAIT_GROWTH, ms);
    const carryMs = ms - this.#waitMs;
    if (carryMs < RANGE_MS) this.#rangeBytes = Math.min(this.#rangeBytes * 2, RANGE_BYTES_MAX);
    if (carryMs > 2 * RANGE_MS) this.#rangeBytes = Math.max(this.#rangeBytes / 2, RANGE_BYTES_MIN);
    if (this.#rate === undefined) return;
    const restMs = (length / this.#rate) * 1000 - ms;
    if (restMs > 0) await sleep(restMs, undefined, { signal, ref: false });
  }

  /** @throws {ObdError} `Corrupt` if a blob that was fetched fails its digest: it is dropped, and fetched again. */
  async #complete(job: Job): Promise<void> {
    const { id, fetchedBytes } = job;
    const wasComplete = job.state === 'complete';
    closeHandles(job);
    const isChecked = fetchedBytes === 0 || (await this.#check(job));
    if (job.stop.signal.aborted) return;
    if (!isChecked) {
      job.notBeforeMs = performance.now() + FAILURE_PAUSE_MS;
      return;
    }
    job.state = 'complete';
    job.problem = '';
    job.timesWrong = 0;
    job.fetchedBytes = 0;
    job.notBeforeMs = performance.now() + COMPLETE_PAUSE_MS;
    if (wasComplete) return;
    const ms = Math.round(performance.now() - job.startedMs);
    this.#log.info({ id, fetchedBytes, ms }, 'image is complete in the cache');
  }

  /** @returns False if a blob changed during its check, as by an eviction. @throws {ObdError} as #complete(). */
  async #check({ sources, stop }: Job): Promise<boolean> {
    for (const source of sources) {
      if (stop.signal.aborted) return false;
      const handle = await this.#cache.openBlob(source);
      const { droppedBytes, uncheckedBytes } = await checkHandle(handle);
      if (uncheckedBytes > 0) return false;
      if (droppedBytes === 0) continue;
      const message = `Cannot keep ${source.label}: what its registry sent fails its digest; it is fetched again`;
      throw new ObdError(ErrorCodes.Corrupt, message, { digest: source.key.digest });
    }
    return true;
  }

  #full(job: Job): void {
    const { id } = job;
    if (job.state !== 'full') {
      this.#log.warn({ id }, 'background fill paused, the cache is full; raise cache_size');
    }
    job.state = 'full';
    job.problem = 'the cache is full; raise cache_size, or free disk space';
    job.notBeforeMs = performance.now() + FULL_PAUSE_MS;
    closeHandles(job);
  }

  #failed(job: Job, err: unknown): void {
    const { id } = job;
    const isWrong = hasCode(err, ErrorCodes.Corrupt);
    const pauseMs = isWrong
      ? Math.min(FAILURE_PAUSE_MS * WRONG_PAUSE_GROWTH ** job.timesWrong++, WRONG_PAUSE_MS_MAX)
      : Math.min(FAILURE_PAUSE_MS * 2 ** job.failures++, FAILURE_PAUSE_MS_MAX);
    if (job.state !== 'failing') this.#log.warn({ id, err }, 'background fill failed, will retry');
    job.state = 'failing';
    job.problem = messageOf(err);
    job.notBeforeMs = performance.now() + pauseMs;
    // This also aborts a fetch that takes too long.
    closeHandles(job);
  }
}

interface MissingRange {
  readonly handle: BlobHandle;
  readonly offset: number;
  readonly length: number;
}

function firstMissing(handles: readonly BlobHandle[], bytesMax: number): MissingRange | undefined {
  for (const handle of handles) {
    const range = handle.missingFrom(0, bytesMax);
    if (range !== undefined) return { handle, ...range };
  }
  return undefined;
}

function closeHandles(job: Job): void {
  for (const handle of job.handles.splice(0)) handle.close();
}

function tooSlow({ source: { label, key } }: BlobHandle): ObdError {
  const message = `Cannot fetch ${label} in the background: no range came within ${RANGE_MS_MAX / 1000} s`;
  return new ObdError(ErrorCodes.Unavailable, message, { digest: key.digest });
}

/**
 * Fetches the chunks that a start is known to need, in that order, before it reads them.
 *
 * Guarantees: a demand starts before what waits here, and a read of a chunk that is on its way joins it. Nothing of an open blob is
 * evicted for it. A replay that fails, or finds no room, ends; reads then fetch what they need. So does one whose start reads
 * other chunks (advice-trial.ts), with what it has in flight.
 *
 * Adjacent chunks of a batch come in one request. The next batch begins while WINDOW_CHUNKS are not
 * exceeded; the scheduler decides how many of them are in flight.
 */
import type { BlobHandle } from '../cache/blob-handle.js';
import type { BlockCache } from '../cache/block-cache.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';
import { type AdviceTrial, CHUNKS_PER_MISS, type TriedAdvice } from './advice-trial.js';

const BATCH_CHUNKS = 32;
/** 6 MiB: also a link of 1 Mbit/s brings them within the minute after which a fetch counts as failed. */
const WINDOW_CHUNKS = 3 * BATCH_CHUNKS;
/** A miss takes about as long. */
const PUT_OFF_MS = 100;
/** 4 MiB. Fewer say little of a start. */
const KNOWN_CHUNKS_MIN = 64;

export interface ReplayResult {
  readonly fetchedBytes: number;
  /** `full`: the cache has no room for more, or stores nothing. */
  readonly ended: 'complete' | 'full' | 'stopped';
}

export class Replay {
  /** Settles when nothing is in flight any more. Rejects with the first failure of a fetch. */
  readonly done: Promise<ReplayResult>;
  readonly #chunks: Uint32Array;
  readonly #expected: readonly ReadonlySet<number>[];
  readonly #blobs: readonly BlobHandle[];
  readonly #cache: Pick<BlockCache, 'fitsUnasked'>;
  #next = 0;
  #inFlight = 0;
  #fetchedBytes = 0;
  #failure: unknown;
  /** Put off until the timer ends. */
  #putOff: Run[] = [];
  #timer: NodeJS.Timeout | undefined;
  #progressed: () => void = () => {};
  #ended: ReplayResult['ended'] | undefined;

  /**
   * Begins at once.
   *
   * @param chunks - Pairs of a blob's place in `blobs` and the number of its chunk. No pair is there twice.
   * @param blobs - Closed by stop(). Until then they show which chunks reads have used, also if no device is open yet when the
   *   last chunk comes.
   */
  constructor(
    chunks: Uint32Array,
    blobs: readonly BlobHandle[],
    cache: Pick<BlockCache, 'fitsUnasked'>,
  ) {
    this.#chunks = chunks;
    this.#blobs = blobs;
    this.#cache = cache;
    const expected = blobs.map(() => new Set<number>());
    for (let i = 0; i < chunks.length; i += 2) expected[chunks[i]!]!.add(chunks[i + 1]!);
    this.#expected = expected;
    this.done = this.#run().finally(() => {
      this.#ended ??= 'complete';
    });
  }

  /** Whether it says something of the start. */
  get isKnown(): boolean {
    return this.#chunks.length / 2 >= KNOWN_CHUNKS_MIN;
  }

  /** Ends it: begins no batch any more, and ends the fetches in flight that no read waits for. Idempotent. */
  stop(): void {
    this.#ended ??= 'stopped';
    for (const blob of this.#blobs) blob.close();
    this.#goOn();
  }

  /** Ends what is in flight, and fetches it later: a read has to fetch something else first. */
  putOff(): void {
    if (this.#ended !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#goOn(), PUT_OFF_MS);
    for (const blob of this.#blobs) blob.endFetches();
  }

  #goOn(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const run of this.#putOff.splice(0)) {
      this.#inFlight -= run.chunks;
      if (this.#ended === undefined) this.#start(run);
    }
    this.#progressed();
  }

  /** For a trial of the replay. */
  get advice(): TriedAdvice {
    return {
      worth: this.#chunks.length / 2 / CHUNKS_PER_MISS,
      saved: () => this.#readChunks() / CHUNKS_PER_MISS,
      isComing: () => this.#ended === undefined,
    };
  }

  /**
   * While the replay runs, misses of its chunks by these handles of the same blobs bring no neighbours.
   *
   * @param trial - Told of all misses by these handles. While it doubts, these come before what is in flight.
   */
  guide(
    handles: readonly BlobHandle[],
    trial: Pick<AdviceTrial, 'missed' | 'isDoubted' | 'isRefuted'>,
  ): void {
    for (const handle of handles) {
      const { digest } = handle.source.key;
      const place = this.#blobs.findIndex(({ source }) => source.key.digest === digest);
      const expected = this.#expected[place];
      handle.onMiss((chunk) => {
        trial.missed();
        // The caller goes through the fetches that are in flight.
        if (trial.isDoubted) queueMicrotask(() => this.putOff());
        return !trial.isRefuted && this.#ended === undefined && expected?.has(chunk) === true;
      });
    }
  }

  #readChunks(): number {
    let count = 0;
    for (let i = 0; i < this.#chunks.length; i += 2) {
      if (this.#blobs[this.#chunks[i]!]!.isRead(this.#chunks[i + 1]!)) count++;
    }
    return count;
  }

  async #run(): Promise<ReplayResult> {
    while (this.#ended === undefined) {
      await this.#until(() => this.#timer === undefined);
      const batch = this.#nextBatch();
      if (batch.length === 0) break;
      const chunks = batch.reduce((sum, run) => sum + run.chunks, this.#inFlight);
      if (!(await this.#cache.fitsUnasked(chunks * CHUNK_BYTES))) this.#ended ??= 'full';
      for (const run of batch) if (this.#ended === undefined) this.#start(run);
      await this.#until(() => this.#inFlight <= WINDOW_CHUNKS - BATCH_CHUNKS);
    }
    await this.#until(() => this.#inFlight === 0);
    if (this.#failure !== undefined) throw this.#failure;
    return { fetchedBytes: this.#fetchedBytes, ended: this.#ended ?? 'complete' };
  }

  #start({ place, first, chunks }: Run): void {
    const blob = this.#blobs[place]!;
    const offset = first * CHUNK_BYTES;
    const length = Math.min(chunks * CHUNK_BYTES, blob.source.key.sizeBytes - offset);
    this.#inFlight += chunks;
    const landed = (failure?: unknown): void => {
      if (failure !== undefined && this.#timer !== undefined) {
        this.#putOff.push({ place, first, chunks });
        return;
      }
      this.#inFlight -= chunks;
      if (failure === undefined) this.#fetchedBytes += length;
      // A fetch that stop() has ended is no failure.
      else if (this.#ended === undefined) this.#failure = failure;
      if (failure !== undefined) this.#ended ??= 'stopped';
      this.#progressed();
    };
    blob.fetch(offset, length, { urgency: 'prefetch', waitMs: undefined }).then(
      () => {
        // The disk has no room after all, or fails: what comes is in memory for a moment only.
        if (!blob.isStored(first)) this.#ended ??= 'full';
        landed();
      },
      (error: unknown) => landed(error),
    );
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      await new Promise<void>((resolve) => {
        this.#progressed = resolve;
      });
    }
  }

  /** The next chunks that are not stored, as runs. */
  #nextBatch(): Run[] {
    const batch: { place: number; chunk: number }[] = [];
    while (batch.length < BATCH_CHUNKS && this.#next < this.#chunks.length) {
      const place = this.#chunks[this.#next++]!;
      const chunk = this.#chunks[this.#next++]!;
      if (!this.#blobs[place]!.isStored(chunk)) batch.push({ place, chunk });
    }
    batch.sort((a, b) => a.place - b.place || a.chunk - b.chunk);
    const runs: Run[] = [];
    for (const { place, chunk } of batch) {
      const last = runs.at(-1);
      if (last?.place === place && last.first + last.chunks === chunk) last.chunks++;
      else runs.push({ place, first: chunk, chunks: 1 });
    }
    return runs;
  }
}

interface Run {
  readonly place: number;
  readonly first: number;
  chunks: number;
}

/**
 * Fetches the chunks that a start is known to need, in that order, before it reads them.
 *
 * Guarantees: a demand never waits behind a replay, and a read of a chunk that is on its way joins it. Nothing of an open blob is
 * evicted for it. A replay that fails, or finds no room, ends; reads then fetch what they need.
 *
 * Adjacent chunks of a batch come in one request. The next batch begins while WINDOW_CHUNKS are not
 * exceeded; the scheduler decides how many of them are in flight.
 */
import type { BlobHandle } from '../cache/blob-handle.js';
import type { BlockCache } from '../cache/block-cache.js';
import { CHUNK_BYTES } from '../io/random-access-file.js';

const BATCH_CHUNKS = 32;
/** 6 MiB: also a link of 1 Mbit/s brings them within the minute after which a fetch counts as failed. */
const WINDOW_CHUNKS = 3 * BATCH_CHUNKS;
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
  /** Handles that have been told what is expected. */
  readonly #guided: BlobHandle[] = [];
  readonly #blobs: readonly BlobHandle[];
  readonly #cache: Pick<BlockCache, 'fitsUnasked'>;
  #next = 0;
  #inFlight = 0;
  #fetchedBytes = 0;
  #failure: unknown;
  #progressed: () => void = () => {};
  #ended: ReplayResult['ended'] | undefined;

  /**
   * Begins at once.
   *
   * @param chunks - Pairs of a blob's place in `blobs` and the number of its chunk. No pair is there twice.
   * @param blobs - They stay open until done settles, or stop() is called.
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
      for (const blob of this.#guided) blob.expect(new Set());
    });
  }

  /** Begins no batch any more. Closing the blobs ends the fetches in flight. */
  stop(): void {
    this.#ended ??= 'stopped';
  }

  /**
   * While the replay runs, misses of its chunks by these handles of the same blobs bring no neighbours.
   *
   * @returns Whether it runs, and says something of the start.
   */
  guide(handles: readonly BlobHandle[]): boolean {
    if (this.#ended !== undefined) return false;
    for (const handle of handles) {
      const { digest } = handle.source.key;
      const place = this.#blobs.findIndex(({ source }) => source.key.digest === digest);
      if (place === -1) continue;
      handle.expect(this.#expected[place]!);
      this.#guided.push(handle);
    }
    return this.#chunks.length / 2 >= KNOWN_CHUNKS_MIN;
  }

  async #run(): Promise<ReplayResult> {
    while (this.#ended === undefined) {
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

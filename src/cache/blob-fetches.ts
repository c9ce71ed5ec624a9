/**
 * Fetches the missing chunks of one blob from its sources into the cache.
 *
 * Guarantees: a chunk is fetched once for any number of readers and handles. Adjacent chunks that are missed in one turn
 * of the event loop come in one request of up to 1 MiB. A load() waits for its own chunks only, also where their request
 * brings more, and ends: with them on the disk or in memory, or with an error.
 *
 * How long a load() waits:
 *
 *   opening an image   OPENING_MS for a source that is unavailable; any other answer than the bytes ends it at once
 *   mounted disk       until its own deadline, for every kind of wrong answer (blob-health.ts)
 *   ... of a blob      that has given nothing to a read for its whole deadline: DEAD_MS, while one fetch continues as
 *                      a probe, for PROBE_MS_MAX at most
 *
 * A miss of a mounted disk brings more than its chunks (fetch-window.ts): what follows them in their request, and windows of
 * a sweep as prefetches, which the scheduler starts after all demand, and which are not retried. A load() of chunks that wait
 * in a prefetch makes it demand. Opening an image fetches what it asks for, and small blobs whole.
 */
import { ErrorCodes, hasCode, ObdError } from '../errors.js';
import type { Urgency, WholeAnswer } from '../io/ranged-source.js';
import { SpeedFloor, TooSlow } from '../io/speed-floor.js';
import { AnswerPauses } from './answer-pauses.js';
import { BlobHealth, isBug, isClosed } from './blob-health.js';
import type { ChunkStore } from './chunk-store.js';
import type { FetchScheduler } from './fetch-scheduler.js';
import { type Fetcher, type FetchOptions, type Flight, Waiter } from './flight.js';
import { FlightAttempt } from './flight-attempt.js';
import { FlightMap } from './flight-map.js';
import type { Transfer } from './origin-link.js';
import type { Lane } from './origin-queue.js';
import { Readahead } from './readahead.js';
import type { SourceOutages, WaitedFor } from './source-outages.js';
import { storingSink } from './storing-sink.js';
import { StrayWhole } from './stray-whole.js';
import { WAITING_MS_MIN, WaitingReads, type Waits } from './waiting-reads.js';
import { WholeStream } from './whole-stream.js';

/** For a source that is unavailable while an image is opened: the caller can retry. */
const OPENING_MS = 60_000;
/** The same for a source that sends the blob whole, while bytes arrive. Shorter than the limit of an attach. */
const OPENING_WHOLE_MS = 150_000;
const DEAD_MS = 10_000;
const PROBE_MS_MAX = 600_000;

/** The stream of the whole blob in flight. */
interface Streaming {
  readonly stream: WholeStream;
  readonly fetcher: Fetcher;
  readonly abort: AbortController;
  /** Flights that resume when the stream ends, unless it brings their chunks. */
  readonly parked: Set<Flight>;
}

export class BlobFetches implements WaitedFor, Lane {
  readonly #store: ChunkStore;
  readonly #scheduler: FetchScheduler;
  readonly #outages: SourceOutages;
  readonly #health: BlobHealth;
  readonly #flights: FlightMap;
  readonly #readahead: Readahead;
  readonly #waiting = new WaitingReads();
  readonly #stray = new StrayWhole();
  readonly #pauses: AnswerPauses;
  /** Shared by all streams of the whole blob: each begins at the first byte. */
  readonly #streamFloor = new SpeedFloor(Number.POSITIVE_INFINITY);
  /** Called when nothing is in flight. */
  readonly #idle: (() => void)[] = [];
  #streaming: Streaming | undefined;
  /** A flight that continues until `untilMs` although no read waits for it. */
  #probe: { readonly flight: Flight; readonly untilMs: number } | undefined;

  constructor(store: ChunkStore, scheduler: FetchScheduler, outages: SourceOutages) {
    this.#store = store;
    this.#scheduler = scheduler;
    this.#outages = outages;
    this.#health = new BlobHealth(() => outages.nextSlotMs(store.key.origin));
    this.#flights = new FlightMap(store);
    const link = scheduler.linkOf(this);
    this.#pauses = new AnswerPauses(link);
    this.#readahead = new Readahead(store, this.#flights, link, {
      takesMore: () => store.hasSpace && !this.#health.isFailing && this.#streaming === undefined,
      fetch: (fetcher, { first, end }, urgency) => this.#takeOff(fetcher, first, end, urgency),
    });
  }

  get origin(): string {
    return this.#store.key.origin;
  }

  get waitingReads(): number {
    return this.#waiting.reads;
  }

  get waitingMs(): number {
    return this.#waiting.ms;
  }

  /** The reads of a mounted disk that have waited through `fetcher` for more than a moment. */
  waitsOf(fetcher: Fetcher): Waits {
    return this.#waiting.of(fetcher, this.#health.lastError);
  }

  /**
   * Resolves once chunks [first, end) have been cached.
   *
   * @throws {ObdError} `Unavailable` when the time is up; while opening also what `fetcher.source.attempt()` throws;
   *   `FailedPrecondition` after dismiss().
   */
  async load(
    fetcher: Fetcher,
    first: number,
    end: number,
    { urgency, waitMs }: FetchOptions,
  ): Promise<void> {
    const isMounted = waitMs !== undefined;
    const flights = this.#flightsFor(fetcher, first, end, urgency, isMounted);
    if (flights.length === 0) return;
    const isDead = isMounted && (this.#health.isDead || flights.some((flight) => flight.isDead));
    const patience = {
      isMounted,
      waitMs: Math.max(0, isDead ? Math.min(waitMs, DEAD_MS) : (waitMs ?? OPENING_MS)),
    };
    const waiter = new Waiter(
      fetcher,
      { first, end },
      flights,
      patience,
      (expired) => this.#expired(expired, isDead ? waitMs : undefined),
      (left, unfinished) => this.#left(left, unfinished),
    );
    this.#waiting.add(waiter);
    await waiter.done;
  }

  /** Aborts the reads of `fetcher`, and its fetches that no other read waits for. It may fetch again. */
  withdraw(fetcher: Fetcher): void {
    this.#waiting.fail(fetcher, closedDuringRead(fetcher));
    for (const flight of this.#flightsOf(fetcher)) {
      if (flight.waiters.size === 0) this.#abandon(flight);
    }
  }

  /** Aborts the reads and fetches of `fetcher`, which is closed; except fetches that have arrived and are being stored. */
  dismiss(fetcher: Fetcher): void {
    this.withdraw(fetcher);
    if (this.#streaming?.fetcher === fetcher) {
      this.#streaming.abort.abort(closedDuringRead(fetcher));
    }
    this.#readahead.dismiss(fetcher);
    for (const flight of this.#flightsOf(fetcher)) {
      if (flight.state === 'fetching') this.#replace(flight);
    }
  }

  /** Its flights that have not arrived. */
  #flightsOf(fetcher: Fetcher): Flight[] {
    return [...this.#flights.all()].filter(
      ({ state, lastFetcher }) => state !== 'keeping' && lastFetcher === fetcher,
    );
  }

  /** Resolves when nothing is in flight. */
  async idle(): Promise<void> {
    while (this.#flights.size > 0 || this.#streaming !== undefined) {
      await new Promise<void>((resolve) => {
        this.#idle.push(resolve);
      });
    }
  }

  #notifyIdle(): void {
    if (this.#flights.size > 0 || this.#streaming !== undefined) return;
    this.#outages.gaveUp(this.#store.key.origin, this);
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The flights that bring the missing chunks of [first, end): new ones and those already in flight. */
  #flightsFor(
    fetcher: Fetcher,
    first: number,
    end: number,
    urgency: Urgency,
    isMounted: boolean,
  ): Flight[] {
    const flights = new Set<Flight>();
    let missed: number | undefined;
    for (let chunk = first; chunk < end; ) {
      const underWay = this.#flights.at(chunk);
      if (underWay !== undefined) {
        flights.add(underWay);
        this.#raise(underWay, urgency);
      }
      const runEnd = this.#flights.runEnd(chunk, end);
      if (runEnd === chunk) {
        chunk++;
        continue;
      }
      missed ??= chunk;
      const joined = this.#flights.join(fetcher, chunk, runEnd);
      if (joined !== undefined) this.#raise(joined, urgency);
      flights.add(joined ?? this.#takeOff(fetcher, chunk, runEnd, urgency));
      chunk = runEnd;
    }
    if (urgency !== 'demand' || flights.size === 0) return [...flights];
    if (missed === undefined) this.#readahead.advance();
    else if (!fetcher.missed(missed)) {
      this.#readahead.missed(fetcher, { first: missed, end }, isMounted);
    }
    fetcher.image?.advance();
    return [...flights];
  }

  /** Whether a sweep keeps the link busy. */
  get isSweeping(): boolean {
    return this.#readahead.isSweeping;
  }

  /** Chunks that such sweeps have passed. */
  get sweptCount(): number {
    return this.#readahead.sweptCount;
  }

  /** Fetches some missing chunks in the background, unless enough of such fetches are queued. */
  stream(fetcher: Fetcher): void {
    this.#readahead.stream(fetcher);
  }

  /** Makes a fetch demand if a demand waits for it. */
  #raise(flight: Flight, urgency: Urgency): void {
    if (urgency !== 'demand' || flight.urgency === 'demand') return;
    flight.urgency = 'demand';
    this.#scheduler.promoted();
  }

  #takeOff(owner: Fetcher, first: number, end: number, urgency: Urgency): Flight {
    const flight = this.#flights.add(owner, first, end, urgency);
    void this.#fly(flight);
    return flight;
  }

  /** Attempts the flight until it has landed, or is left to a stream of the whole blob. */
  async #fly(flight: Flight): Promise<void> {
    while (!flight.isOver && !flight.isParked) {
      if (this.#health.holdsBack(flight)) await this.#health.turn(flight);
      if (flight.isOver || this.#park(flight)) break;
      await this.#scheduler.run(this, flight, (transfer) => this.#attempt(flight, transfer));
    }
    this.#health.gaveUp(flight);
  }

  /** Leaves the flight to the stream of the whole blob, if there is one that has not passed it. */
  #park(flight: Flight): boolean {
    const streaming = this.#streaming;
    if (streaming === undefined || flight.first < streaming.stream.position) return false;
    flight.isParked = true;
    streaming.parked.add(flight);
    return true;
  }

  async #attempt(flight: Flight, transfer: Transfer): Promise<void> {
    // The state may have changed while the flight waited for its slot.
    if (flight.isOver) return;
    if (this.#health.holdsBack(flight)) {
      if (flight.isOptional) this.#abandon(flight);
      return;
    }
    if (this.#streaming !== undefined && flight.first >= this.#streaming.stream.position) return;
    flight.state = 'fetching';
    const fetcher = flight.nextFetcher();
    const abort = new AbortController();
    flight.abort = abort;
    const fill = flight.nextFill(this.#store.sizeBytes);
    const attempt = new FlightAttempt(flight, fetcher, fill, this.#store, this.#flights);
    const left = new AbortController();
    const pauses = this.#pauses.watch(flight, fetcher.source, (error) => left.abort(error));
    let counted = fill.filled;
    fill.progressed = () => {
      pauses.progressed();
      transfer.received(fill.filled - counted);
      counted = fill.filled;
      if (abort.signal.aborted) return;
      const stored = attempt.storeArrived();
      void stored?.then((arrived) => this.#land(arrived));
    };
    fetcher.onRequest();
    const startedMs = performance.now();
    try {
      const { urgency, lastError } = flight;
      const signal = AbortSignal.any([abort.signal, left.signal]);
      const options = { signal, after: lastError, urgency };
      const whole = await fetcher.source.attempt(fill, options);
      pauses.ended();
      if (whole !== undefined) {
        const stray = this.#stray.errorOf(whole, fetcher.source, startedMs);
        transfer.ended();
        if (stray === undefined && !abort.signal.aborted) {
          return await this.#takeWhole(whole, flight, fetcher);
        }
        whole.cutOff();
        throw stray;
      }
      // Dismissed while in flight: another flight may be fetching these chunks by now.
      if (abort.signal.aborted) return;
      this.#stray.ranged();
      await attempt.storeRest();
      this.#succeeded(flight);
      this.#land(flight);
    } catch (error) {
      pauses.ended();
      if (abort.signal.aborted) return;
      const arrived = await attempt.storePart();
      if (arrived !== undefined) this.#land(arrived);
      if (!flight.isOver) this.#endAttempt(flight, fetcher, error);
    }
  }

  /** The flight may be over already: a stream may have brought its chunks before it broke. */
  #endAttempt(flight: Flight, fetcher: Fetcher, error: unknown): void {
    if (!flight.isOver) flight.state = 'queued';
    flight.lastError = error;
    // Bytes arrive, so the rest is requested at once.
    if (error instanceof TooSlow) {
      this.#health.gaveUp(flight);
    } else {
      this.#health.failed(flight, error);
      if (!isClosed(error)) this.#outages.failed(this.#store.key.origin, this, error);
    }
    for (const waiter of [...flight.waiters]) {
      waiter.lastError = error;
      if (waiter.fetcher !== fetcher) continue;
      const isEnd = !waiter.isMounted && !hasCode(error, ErrorCodes.Unavailable);
      if (isEnd || isBug(error)) waiter.fail(error);
    }
    if (flight.isOver) return;
    if (flight.waiters.size > 0) {
      for (const { first, end, waiters } of this.#flights.narrow(flight)) {
        const other = this.#takeOff(flight.owner, first, end, flight.urgency);
        for (const waiter of waiters) waiter.add(other);
      }
      return;
    }
    const probe = this.#probe;
    const continues = probe?.flight === flight && performance.now() < probe.untilMs;
    if (!continues || isBug(error) || isClosed(error)) this.#abandon(flight);
  }

  /** Takes the blob that was sent in place of the flight's range, unless a stream of it is in flight. */
  async #takeWhole(whole: WholeAnswer, flight: Flight, fetcher: Fetcher): Promise<void> {
    if (this.#streaming !== undefined) {
      whole.cutOff();
      flight.state = 'queued';
      flight.isParked = true;
      this.#streaming.parked.add(flight);
      return;
    }
    const sink = storingSink(
      this.#store,
      this.#flights,
      (bytes) => fetcher.onBytes(bytes),
      (chunk) => this.#landIfHere(this.#flights.at(chunk)),
    );
    const stream = new WholeStream(fetcher.source, sink);
    // The stream has the connection from now on: the flight's end does not end it.
    const streaming = { stream, fetcher, abort: flight.abort, parked: new Set([flight]) };
    flight.abort = new AbortController();
    flight.state = 'queued';
    this.#streaming = streaming;
    this.#health.gaveUp(flight);
    let failure: unknown;
    try {
      await stream.take(whole, this.#streamFloor);
      this.#succeeded(flight);
    } catch (error) {
      failure = error;
    }
    this.#streaming = undefined;
    streaming.parked.delete(flight);
    if (failure !== undefined && !streaming.abort.signal.aborted) {
      for (const { waiters } of streaming.parked) {
        for (const waiter of waiters) waiter.lastError = failure;
      }
      this.#endAttempt(flight, fetcher, failure);
    }
    for (const parked of streaming.parked) {
      parked.isParked = false;
      if (parked.isOptional) this.#abandon(parked);
      else void this.#fly(parked);
    }
    this.#notifyIdle();
  }

  #landIfHere(flight: Flight | undefined): void {
    if (flight === undefined || flight.state === 'keeping') return;
    for (let chunk = flight.first; chunk < flight.end; chunk++) {
      if (!this.#store.isCached(chunk)) return;
    }
    this.#succeeded(flight);
    this.#land(flight);
    flight.abort.abort();
  }

  #succeeded(flight: Flight): void {
    this.#health.succeeded(flight);
    this.#outages.succeeded(this.#store.key.origin, this);
  }

  #land(flight: Flight): void {
    if (!this.#over(flight)) return;
    for (const waiter of [...flight.waiters]) waiter.landed(flight);
    this.#readahead.advance();
    flight.owner.image?.advance();
    this.#notifyIdle();
  }

  /** Ends a flight without waiting reads. */
  #abandon(flight: Flight): void {
    if (!this.#over(flight)) return;
    flight.abort.abort();
    this.#notifyIdle();
  }

  #over(flight: Flight): boolean {
    if (flight.isOver) return false;
    flight.state = 'landed';
    if (this.#probe?.flight === flight) this.#probe = undefined;
    this.#streaming?.parked.delete(flight);
    this.#flights.delete(flight);
    this.#health.gaveUp(flight);
    return true;
  }

  /** The handle was closed during an attempt: the other waiters start a new flight, with their own handles. */
  #replace(flight: Flight): void {
    const { first, end } = flight;
    const waiters = [...flight.waiters];
    if (!this.#over(flight)) return;
    flight.abort.abort();
    const by = this.#takeOff(waiters[0]!.fetcher, first, end, flight.urgency);
    for (const waiter of waiters) {
      waiter.leave(flight);
      waiter.add(by);
    }
  }

  /**
   * @param deadWaitMs - How long the read of a dead blob may wait if the blob comes after all.
   * @returns How much longer it waits, in ms.
   */
  #expired(waiter: Waiter, deadWaitMs: number | undefined): number {
    const streaming = this.#streaming;
    const nowMs = performance.now();
    const isComing = streaming !== undefined && nowMs - streaming.stream.progressMs < OPENING_MS;
    if (!waiter.isMounted) {
      return isComing ? Math.max(0, waiter.startedMs + OPENING_WHOLE_MS - nowMs) : 0;
    }
    waiter.lastError ??= this.#health.lastError;
    if (deadWaitMs !== undefined) {
      return isComing ? Math.max(0, waiter.startedMs + deadWaitMs - nowMs) : 0;
    }
    if (isComing || waiter.waitMs < WAITING_MS_MIN) return 0;
    if (this.#health.lastSuccessMs > waiter.startedMs) return 0;
    this.#health.expired();
    this.#outages.failed(this.#store.key.origin, this, waiter.lastError ?? noAnswer(waiter));
    return 0;
  }

  #left(waiter: Waiter, unfinished: ReadonlySet<Flight>): void {
    this.#waiting.delete(waiter);
    for (const flight of unfinished) {
      if (flight.isOver) continue;
      // A read with almost no time left does not prove that the source fails.
      const isVain = waiter.isMounted && waiter.hasExpired && waiter.waitMs >= WAITING_MS_MIN;
      if (isVain && flight.failures > 0) flight.isDead = true;
      if (flight.waiters.size > 0 || flight.state === 'keeping') continue;
      const isProbed = isVain && (this.#health.isDead || flight.isDead);
      if (isProbed && this.#probe === undefined) {
        if (flight.state === 'fetching') this.#health.grant(flight);
        // The probe uses the handle of a caller that is still open: closing that handle ends it.
        if (flight.state === 'queued') flight.lastFetcher = waiter.fetcher;
        this.#probe = { flight, untilMs: performance.now() + PROBE_MS_MAX };
      } else if (this.#probe?.flight !== flight) {
        this.#abandon(flight);
      }
    }
  }
}

function closedDuringRead({ source: { label, key } }: Fetcher): ObdError {
  const message = `Cannot read ${label}: it was closed during the read`;
  return new ObdError(ErrorCodes.FailedPrecondition, message, { digest: key.digest });
}

function noAnswer({ fetcher: { source } }: Waiter): ObdError {
  return new ObdError(ErrorCodes.Unavailable, `Cannot read ${source.label}: there is no answer`);
}

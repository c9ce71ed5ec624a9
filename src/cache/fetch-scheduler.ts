/**
 * Decides which fetch starts next, and how many are in flight: here all fetches of all blobs compete for the network.
 *
 * Fetches are in lanes, one per blob. Demand goes first, in the order of requests, except that a lane at its limit is
 * passed over, and a lane with no fetch in flight may always start one. So blobs that are read in one sweep, or whose
 * source hangs, delay no others.
 *
 * A prefetch starts when no demand can, and only while half of the places are free, so that a demand which comes later
 * finds a place at once. Under constant demand a prefetch may wait forever; promoted() makes it demand.
 *
 * A fetch starts at the end of the turn of the event loop in which it was requested, so that requests of one turn can be
 * joined first.
 *
 * Callers bound the queue: each chunk of each open blob waits at most once.
 */
import type { Urgency } from '../io/ranged-source.js';

/** With requests of up to 1 MiB, and one more for each lane, this bounds the memory in flight. */
const FETCHES_MAX = 64;
/** As many requests as a kernel has in flight on one device when it reads ahead for several readers. */
const LANE_FETCHES_MAX = 8;
/** No prefetch starts while so many fetches, of either urgency, are in flight: in all lanes, and in its own. */
const PREFETCH_FETCHES_MAX = FETCHES_MAX / 2;
const PREFETCH_LANE_FETCHES_MAX = LANE_FETCHES_MAX / 2;

/** Its urgency may change to demand while it waits: call promoted() then. */
export interface Prioritized {
  readonly urgency: Urgency;
}

interface Waiting {
  readonly lane: object;
  readonly priority: Prioritized;
  readonly start: () => void;
}

export class FetchScheduler {
  readonly #waiting: Waiting[] = [];
  readonly #running = new Map<object, number>();
  #runningTotal = 0;
  #turnScheduled = false;

  /** Runs `fetch` when its turn comes, and settles as it does. */
  run(lane: object, priority: Prioritized, fetch: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        fetch()
          .then(resolve, reject)
          .finally(() => this.#finished(lane));
      };
      this.#waiting.push({ lane, priority, start });
      this.#scheduleTurn();
    });
  }

  /** A waiting prefetch has become demand. */
  promoted(): void {
    if (this.#waiting.length > 0) this.#scheduleTurn();
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    setImmediate(() => {
      this.#turnScheduled = false;
      this.#start('demand');
      this.#start('prefetch');
    });
  }

  #start(urgency: Urgency): void {
    for (let i = 0; i < this.#waiting.length; ) {
      const { lane, priority, start } = this.#waiting[i]!;
      if (priority.urgency !== urgency || !this.#mayStart(lane, urgency)) {
        i++;
        continue;
      }
      this.#waiting.splice(i, 1);
      this.#running.set(lane, (this.#running.get(lane) ?? 0) + 1);
      this.#runningTotal++;
      start();
    }
  }

  #mayStart(lane: object, urgency: Urgency): boolean {
    const running = this.#running.get(lane) ?? 0;
    if (urgency === 'prefetch') {
      return running < PREFETCH_LANE_FETCHES_MAX && this.#runningTotal < PREFETCH_FETCHES_MAX;
    }
    return running === 0 || (running < LANE_FETCHES_MAX && this.#runningTotal < FETCHES_MAX);
  }

  #finished(lane: object): void {
    const running = this.#running.get(lane)! - 1;
    if (running === 0) this.#running.delete(lane);
    else this.#running.set(lane, running);
    this.#runningTotal--;
    if (this.#waiting.length > 0) this.#scheduleTurn();
  }
}

/**
 * Decides which fetch goes next, and how many are under way: the one place where demand, and later what is
 * less urgent, compete for the network.
 *
 * Fetches are in lanes, one per blob. First come, first served, except that a lane which has all it may
 * have is passed over, and one that has none under way may always start one: blobs that are read in one
 * sweep, or whose registry hangs, keep no other from going on.
 * A fetch starts at the end of the turn of the event loop in which it was asked for, so that what is asked
 * for together can be joined first.
 *
 * What waits here is bounded by its users: each chunk of each open blob waits at most once.
 */

/** With requests of up to 1 MiB, and one more for each lane, this bounds the memory in flight. */
const FETCHES_MAX = 64;
/** As many requests as a kernel has under way on one device when it reads ahead for several readers. */
const LANE_FETCHES_MAX = 8;

interface Waiting {
  readonly lane: object;
  readonly start: () => void;
}

export class FetchScheduler {
  readonly #waiting: Waiting[] = [];
  readonly #running = new Map<object, number>();
  #runningTotal = 0;
  #turnScheduled = false;

  /** Runs `fetch` when its turn comes, and settles as it does. */
  run(lane: object, fetch: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = () => {
        fetch()
          .then(resolve, reject)
          .finally(() => this.#finished(lane));
      };
      this.#waiting.push({ lane, start });
      this.#scheduleTurn();
    });
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    setImmediate(() => {
      this.#turnScheduled = false;
      this.#startWhatMay();
    });
  }

  #startWhatMay(): void {
    for (let i = 0; i < this.#waiting.length; ) {
      const { lane, start } = this.#waiting[i]!;
      const running = this.#running.get(lane) ?? 0;
      const mayStart = running < LANE_FETCHES_MAX && this.#runningTotal < FETCHES_MAX;
      if (!mayStart && running > 0) {
        i++;
        continue;
      }
      this.#waiting.splice(i, 1);
      this.#running.set(lane, running + 1);
      this.#runningTotal++;
      start();
    }
  }

  #finished(lane: object): void {
    const running = this.#running.get(lane)! - 1;
    if (running === 0) this.#running.delete(lane);
    else this.#running.set(lane, running);
    this.#runningTotal--;
    if (this.#waiting.length > 0) this.#scheduleTurn();
  }
}

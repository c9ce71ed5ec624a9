/**
 * Decides which fetch starts next, and how many are in flight: here all fetches of all blobs compete for the network.
 *
 * Demand goes first, then prefetches, then the background. A fetch that no read waits for starts when no demand can, and only
 * while the link of its origin carries less than it can (origin-link.ts): it then delays a demand that comes later by little.
 * Under constant demand such a fetch may wait forever; promoted() makes it demand.
 *
 * Each origin has its own limits and its own order (origin-queue.ts), and origins take turns. An origin with no fetch in
 * flight may always start one. So origins that hang delay no others.
 *
 * A fetch starts at the end of the turn of the event loop in which it was requested, so that requests of one turn can be
 * joined first.
 *
 * Callers bound the queue: each chunk of each open blob waits at most once.
 */
import type { Urgency } from '../io/ranged-source.js';
import type { OriginLink, Transfer } from './origin-link.js';
import { type Lane, OriginQueue, type Waiting, type Wanted } from './origin-queue.js';

/** With requests of up to 1 MiB, and one more for each origin, this bounds the memory in flight. */
const FETCHES_MAX = 64;
/** Origins whose measurements are kept while nothing of them is in flight. */
const ORIGINS_MAX = 256;
const URGENCIES = ['demand', 'prefetch', 'background'] as const;

export class FetchScheduler {
  /** The least recently used first. */
  readonly #origins = new Map<string, OriginQueue>();
  #runningTotal = 0;
  #turnScheduled = false;

  linkOf({ origin }: Lane): OriginLink {
    return this.#queueOf(origin).link;
  }

  /** Runs `fetch` when its turn comes, and settles as it does. */
  run(lane: Lane, wanted: Wanted, fetch: (transfer: Transfer) => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const queue = this.#queueOf(lane.origin);
      const start = (transfer: Transfer) => {
        fetch(transfer)
          .then(resolve, reject)
          .finally(() => this.#finished(queue, { lane, wanted }, transfer));
      };
      queue.push({ lane, wanted, start });
      this.#scheduleTurn();
    });
  }

  /** A waiting fetch has become more urgent. */
  promoted(): void {
    this.#scheduleTurn();
  }

  #queueOf(origin: string): OriginQueue {
    const found = this.#origins.get(origin);
    if (found !== undefined) return found;
    for (const [name, queue] of this.#origins) {
      if (this.#origins.size < ORIGINS_MAX) break;
      if (queue.isIdle) this.#origins.delete(name);
    }
    const queue = new OriginQueue();
    this.#origins.set(origin, queue);
    return queue;
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled) return;
    this.#turnScheduled = true;
    setImmediate(() => {
      this.#turnScheduled = false;
      for (const urgency of URGENCIES) this.#startAll(urgency);
    });
  }

  #startAll(urgency: Urgency): void {
    for (let hasStarted = true; hasStarted; ) {
      hasStarted = false;
      for (const queue of this.#origins.values()) {
        const next = this.#mayStart(queue, urgency) ? queue.take(urgency) : undefined;
        if (next === undefined) continue;
        this.#start(queue, next);
        hasStarted = true;
      }
    }
  }

  #start(queue: OriginQueue, { wanted, start }: Waiting): void {
    this.#runningTotal++;
    const { received, ended } = queue.link.started(wanted.bytes);
    start({
      received: (bytes) => {
        received(bytes);
        // Its link has room again.
        if (queue.hasWaiting) this.#scheduleTurn();
      },
      ended,
    });
  }

  #mayStart(queue: OriginQueue, urgency: Urgency): boolean {
    if (!queue.hasWaiting) return false;
    if (urgency === 'demand') return !queue.hasRunning || this.#runningTotal < FETCHES_MAX;
    return this.#runningTotal < FETCHES_MAX / 2;
  }

  #finished(queue: OriginQueue, ended: Pick<Waiting, 'lane' | 'wanted'>, transfer: Transfer): void {
    transfer.ended();
    queue.finished(ended);
    this.#runningTotal--;
    this.#scheduleTurn();
  }
}

/**
 * The fetches from one origin: those that wait, those that run, and which starts next.
 *
 * Images share an origin fairly, however many blobs they have: of the fetches of one urgency, the one whose image has the fewest in
 * flight starts first, and the oldest of these. So an image that is swept delays no other image by more than the requests that are in
 * flight.
 */
import type { Urgency } from '../io/ranged-source.js';
import { OriginLink, type Transfer } from './origin-link.js';

/** As many as there are connections to a host (src/registry/http-client.ts): more would wait there, in their order. */
const FETCHES_MAX = 32;
/** More requests than a kernel has in flight on one device when it reads ahead for several readers. */
const LANE_FETCHES_MAX = 12;
/** No fetch that no read waits for starts while so many of any kind run: the next demand finds a connection. */
const UNASKED_FETCHES_MAX = FETCHES_MAX / 2;
const UNASKED_LANE_FETCHES_MAX = 8;

/** Answers of so many bytes together overflow no queue. */
const SMALL_BYTES_MAX = 1 << 20;

/** A blob. Its fetches wait for each other, and those of other blobs do not. */
export interface Lane {
  readonly origin: string;
}

/** The urgency and the size of one fetch. If the urgency changes while the fetch waits, call promoted() of the scheduler. */
export interface Wanted {
  readonly urgency: Urgency;
  /** When it starts. */
  readonly bytes: number;
  /** The image that it is for; undefined for a blob of no image, which is by itself. */
  readonly image: object | undefined;
}

export interface Waiting {
  readonly lane: Lane;
  readonly wanted: Wanted;
  readonly start: (transfer: Transfer) => void;
}

export class OriginQueue {
  readonly link = new OriginLink();
  readonly #waiting: Waiting[] = [];
  /** By blob, and by image. */
  readonly #running = new Map<object, number>();
  #runningTotal = 0;

  get isIdle(): boolean {
    return this.#runningTotal === 0 && this.#waiting.length === 0;
  }

  get hasRunning(): boolean {
    return this.#runningTotal > 0;
  }

  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  push(waiting: Waiting): void {
    this.#waiting.push(waiting);
  }

  /** Removes the next fetch of that urgency that may start, and counts it as running. */
  take(urgency: Urgency): Waiting | undefined {
    let best = -1;
    let bestRunning = Number.POSITIVE_INFINITY;
    const laneMax = urgency === 'demand' ? LANE_FETCHES_MAX : UNASKED_LANE_FETCHES_MAX;
    if (!this.#mayStart(urgency)) return undefined;
    for (const [i, { lane, wanted }] of this.#waiting.entries()) {
      if (wanted.urgency !== urgency || this.#runningOf(lane) >= laneMax) continue;
      const running = this.#runningOf(wanted.image ?? lane);
      if (running >= bestRunning) continue;
      if (urgency !== 'demand' && !this.#hasRoomFor(wanted)) continue;
      best = i;
      bestRunning = running;
    }
    const [taken] = best === -1 ? [] : this.#waiting.splice(best, 1);
    if (taken === undefined) return undefined;
    this.#count(taken, 1);
    return taken;
  }

  finished(ended: Pick<Waiting, 'lane' | 'wanted'>): void {
    this.#count(ended, -1);
  }

  #count({ lane, wanted: { image } }: Pick<Waiting, 'lane' | 'wanted'>, change: 1 | -1): void {
    this.#runningTotal += change;
    for (const each of image === undefined ? [lane] : [lane, image]) {
      const running = this.#runningOf(each) + change;
      if (running === 0) this.#running.delete(each);
      else this.#running.set(each, running);
    }
  }

  #runningOf(laneOrImage: object): number {
    return this.#running.get(laneOrImage) ?? 0;
  }

  #hasRoomFor({ bytes }: Wanted): boolean {
    const { inFlightBytes, largeRequestsMax } = this.link;
    return inFlightBytes + bytes <= SMALL_BYTES_MAX || this.#runningTotal < largeRequestsMax;
  }

  #mayStart(urgency: Urgency): boolean {
    if (urgency === 'demand') return this.#runningTotal < FETCHES_MAX;
    const { inFlightBytes, aheadBytesMax, backgroundBytesMax } = this.link;
    const bytesMax = urgency === 'prefetch' ? aheadBytesMax : backgroundBytesMax;
    return this.#runningTotal < UNASKED_FETCHES_MAX && inFlightBytes < bytesMax;
  }
}

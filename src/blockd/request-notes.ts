/**
 * Notes about the requests of one device, for the log at level debug. At most NOTES_PER_SECOND_MAX leave the thread that
 * serves the device; the next note tells how many were suppressed before it.
 */
import type { RequestObserver } from '../blockdev/request-observer.js';
import { messageOf } from '../errors.js';

/** For each device. More is no story, and would cost more than the requests. */
const NOTES_PER_SECOND_MAX = 100;

/** A request that is being loaded, or has been answered. Offset and length are in bytes. */
export interface RequestNote {
  readonly request: 'read' | 'write' | 'zero' | 'flush';
  readonly offset: number;
  readonly length: number;
  /** Undefined as long as the request is being loaded. */
  readonly answer:
    | {
        readonly from: 'hit' | 'loaded';
        /** From the arrival of the request. */
        readonly ms: number;
        /** Why it failed. */
        readonly problem: string | undefined;
      }
    | undefined;
  /** Notes of this device that were left out since the one before. */
  readonly suppressed: number;
}

export class RequestNotes implements RequestObserver {
  readonly #send: (note: RequestNote) => void;
  #secondStartedMs = Number.NEGATIVE_INFINITY;
  #sent = 0;
  #suppressed = 0;

  constructor(send: (note: RequestNote) => void) {
    this.#send = send;
  }

  started(request: RequestNote['request'], offset: number, length: number): void {
    if (this.#isAllowed()) this.#note(request, offset, length, undefined);
  }

  ended(
    ...[request, offset, length, durationMs, from, error]: Parameters<RequestObserver['ended']>
  ) {
    if (!this.#isAllowed()) return;
    this.#note(request, offset, length, {
      from: from === 'local' ? 'hit' : 'loaded',
      ms: Math.round(durationMs * 1000) / 1000,
      problem: error === undefined ? undefined : messageOf(error),
    });
  }

  #isAllowed(): boolean {
    const nowMs = performance.now();
    if (nowMs - this.#secondStartedMs >= 1000) {
      this.#secondStartedMs = nowMs;
      this.#sent = 0;
    }
    if (this.#sent < NOTES_PER_SECOND_MAX) return true;
    this.#suppressed++;
    return false;
  }

  #note(
    request: RequestNote['request'],
    offset: number,
    length: number,
    answer: RequestNote['answer'],
  ): void {
    this.#sent++;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    this.#send({ request, offset, length, answer, suppressed });
  }
}

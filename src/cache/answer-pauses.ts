/**
 * Leaves an answer that pauses on a near link, and lets its rest be asked for on another connection.
 *
 * The last packets of an answer, once lost in a full queue, are sent again after 200 ms (RFC 6298, Linux's TCP_RTO_MIN): a hundred
 * round trips of a near link. A new connection brings the rest in a few. On a far link it would not be sooner.
 *
 * Only for answers that a read waits for, once for each flight, and while nothing else comes over the link: answers that share it
 * pause for each other, and where many pause together it is the registry that does. Where the rest pauses too, the registry pauses and not TCP:
 * then nothing of the blob is left for OFF_MS.
 */
import { ErrorCodes } from '../errors.js';
import { TooSlow } from '../io/speed-floor.js';
import type { BlobSource } from './blob-source.js';
import type { Flight } from './flight.js';
import type { OriginLink } from './origin-link.js';

/** Above the pauses of two busy processors, far below TCP's time-out. */
const PAUSE_MS = 60;
/** The same for the whole link, less the inexactness of timers. */
const QUIET_MS = 50;
/** A longer wait for the first byte: the rest would be here with TCP's time-out. */
const FIRST_BYTE_MS_MAX = 15;
/** More answers side by side pause for each other. */
const IN_FLIGHT_MAX = 3;
/** A timer that is so late was held up by this program, which may have held up the bytes as well. */
const LATE_MS = 10;
const OFF_MS = 60_000;

/** One answer under watch. */
export interface WatchedPauses {
  /** Bytes have come. */
  progressed(): void;
  ended(): void;
}

export class AnswerPauses {
  readonly #link: OriginLink;
  #offUntilMs = 0;

  /** @param link - To the blob's origin. */
  constructor(link: OriginLink) {
    this.#link = link;
  }

  /** @param leave - Called at most once, to end the answer's connection. */
  watch(flight: Flight, source: BlobSource, leave: (error: TooSlow) => void): WatchedPauses {
    let timer: NodeJS.Timeout | undefined;
    let dueMs = 0;
    const arm = () => {
      dueMs = performance.now() + PAUSE_MS;
      timer = timer?.refresh() ?? setTimeout(paused, PAUSE_MS);
    };
    const paused = () => {
      const isLate = performance.now() - dueMs > LATE_MS;
      const isQuiet = this.#link.inFlight <= IN_FLIGHT_MAX && this.#link.quietMs >= QUIET_MS;
      if (isLate || !isQuiet || flight.waiters.size === 0 || !this.#isWatching) return arm();
      if (flight.wasLeft) {
        this.#offUntilMs = performance.now() + OFF_MS;
        return;
      }
      flight.wasLeft = true;
      const problem = `it pauses for ${PAUSE_MS} ms; asking for the rest on a new connection`;
      leave(new TooSlow(ErrorCodes.Unavailable, `Cannot read ${source.label}: ${problem}`));
    };
    return { progressed: arm, ended: () => clearTimeout(timer) };
  }

  get #isWatching(): boolean {
    const { firstByteMs } = this.#link;
    if (performance.now() < this.#offUntilMs) return false;
    return firstByteMs !== undefined && firstByteMs <= FIRST_BYTE_MS_MAX;
  }
}

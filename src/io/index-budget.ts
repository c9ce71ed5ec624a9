/**
 * One limit on the memory that images claim while they are open: tables of compressed blocks, indexes of layers, and the
 * bitmaps of cached blobs. The author of an image wrote the sizes in its headers, so memory is charged before it is
 * allocated, and before the index that fills it is fetched.
 *
 * An opening may soon return its charge, when it ends or is refused; an open image may not. So a charge waits if only
 * other openings block it, and is refused at once if open images block it, or the image's own size does.
 *
 * The counters are in shared memory: all threads charge one budget, each by itself. They are in KiB, rounded up
 * for each charge, so that they fit 32 bits up to 2 TiB.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ErrorCodes, ObdError } from '../errors.js';

const UNIT_BYTES = 1024;
/** The largest value of the shared counter. */
export const INDEX_BUDGET_BYTES_MAX = (2 ** 31 - 1) * UNIT_BYTES;
/** How long a charge waits for other openings. */
const WAIT_MS = 30_000;
const POLL_MS = 50;
/** Indexes of the shared counters: all charges, and those of openings alone. */
const USED = 0;
const OPENING = 1;

/** The account that one image charges. */
export interface IndexMemory {
  /**
   * Charges memory that is about to be allocated; waits for it at most 30 s, while other images are being opened.
   * @param what - The owner of the memory, for the message.
   * @throws {ObdError} `Unsupported` if the budget has less left.
   */
  charge(bytes: number, what: string): Promise<void>;
  /** Returns a charge, or a part of one. */
  release(bytes: number): void;
}

/** Describes an account to another thread. */
export interface SharedIndexAccount {
  readonly limitBytes: number;
  readonly mayExceed: boolean;
  readonly counters: SharedArrayBuffer;
  readonly own: SharedArrayBuffer;
}

export class IndexBudget {
  readonly #limitBytes: number;
  readonly #counters = new SharedArrayBuffer(8);

  /** Creates an unused budget. @param limitBytes - At most {@link INDEX_BUDGET_BYTES_MAX}. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return Atomics.load(new Int32Array(this.#counters), USED) * UNIT_BYTES;
  }

  /**
   * The account of one image.
   *
   * @param mayExceed - Charges are counted and never refused: the device exists already, and refusing to serve it again
   *   would break a container.
   */
  account(mayExceed: boolean): IndexAccount {
    const own = new SharedArrayBuffer(4);
    const limitBytes = this.#limitBytes;
    return new IndexAccount({ limitBytes, mayExceed, counters: this.#counters, own });
  }
}

/** Opened and closed by its owner; another thread makes its own of {@link shared}, and only charges and releases. */
export class IndexAccount implements IndexMemory {
  readonly shared: SharedIndexAccount;
  readonly #counters: Int32Array;
  readonly #own: Int32Array;
  readonly #limitUnits: number;
  #isOpening = true;

  constructor(shared: SharedIndexAccount) {
    this.shared = shared;
    this.#counters = new Int32Array(shared.counters);
    this.#own = new Int32Array(shared.own);
    const limitBytes = shared.mayExceed ? INDEX_BUDGET_BYTES_MAX : shared.limitBytes;
    this.#limitUnits = limitBytes / UNIT_BYTES;
  }

  async charge(bytes: number, what: string, waitMs = WAIT_MS): Promise<void> {
    const units = unitsOf(bytes);
    const endMs = performance.now() + waitMs;
    while (!this.#take(units)) {
      const usedUnits = Atomics.load(this.#counters, USED);
      const ownUnits = Atomics.load(this.#own, 0);
      const othersOpening = Atomics.load(this.#counters, OPENING) - ownUnits;
      const isHopeless = usedUnits - othersOpening + units > this.#limitUnits;
      if (isHopeless || performance.now() > endMs) {
        throw this.#refused(bytes, what, ownUnits, usedUnits);
      }
      await sleep(POLL_MS);
    }
  }

  release(bytes: number): void {
    this.#release(unitsOf(bytes));
  }

  /** The image is open: what it has charged stays until close(). */
  opened(): void {
    if (!this.#isOpening) return;
    this.#isOpening = false;
    Atomics.sub(this.#counters, OPENING, Atomics.load(this.#own, 0));
  }

  /** Returns all that the image has charged. Idempotent. */
  close(): void {
    this.#release(Atomics.load(this.#own, 0));
  }

  /** Orders its updates so that another thread may mistake a charge for an opening's and wait, never the reverse. */
  #take(units: number): boolean {
    Atomics.add(this.#counters, OPENING, units);
    for (;;) {
      const used = Atomics.load(this.#counters, USED);
      if (used + units > this.#limitUnits) {
        Atomics.sub(this.#counters, OPENING, units);
        return false;
      }
      if (Atomics.compareExchange(this.#counters, USED, used, used + units) === used) break;
    }
    Atomics.add(this.#own, 0, units);
    return true;
  }

  #release(units: number): void {
    Atomics.sub(this.#own, 0, units);
    Atomics.sub(this.#counters, USED, units);
    if (this.#isOpening) Atomics.sub(this.#counters, OPENING, units);
  }

  #refused(bytes: number, what: string, ownUnits: number, usedUnits: number): ObdError {
    const needed = bytes + ownUnits * UNIT_BYTES;
    const others = (usedUnits - ownUnits) * UNIT_BYTES;
    return new ObdError(
      ErrorCodes.Unsupported,
      `Cannot open ${what}: the indexes of the image take ${needed} bytes of memory, and other images use ${others} of ${this.shared.limitBytes}; raise index_memory in obd-blockd's configuration if the image is trusted`,
      { path: what, length: needed },
    );
  }
}

function unitsOf(bytes: number): number {
  return Math.ceil(bytes / UNIT_BYTES);
}
